"""Models in the MONAI Bundle layout, for `python -m monai.bundle` and what builds on it.

https://docs.monai.io/en/stable/bundle_intro.html, specification of the layout: `mb_specification`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medrl
from medrl.bundles.folder import LICENCE_FILE, MANIFEST_FILE, WEIGHTS_FILE, read_manifest
from medrl.bundles.manifest import Manifest
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from medrl.landmark.detect import LandmarkDetector

_README = """# {title}

The medrl model `{name}` in the MONAI Bundle layout. It needs `pip install medrl`.

    python -m monai.bundle run --config_file configs/inference.json \\
        --images "['head.nii.gz']" --output_dir out

writes for each scan a 3D Slicer point list, a table (RAS mm), every agent's path and a picture.

---

{card}
"""


def export(bundle: Path, folder: Path) -> Path:
    """Write a medrl model as a MONAI Bundle; the folder appears only when it is whole.

    Args:
        bundle: Folder of the model.
        folder: Folder of the new bundle; must not exist or be empty.

    Returns:
        The new folder: `configs/metadata.json`, `configs/inference.json`, `models/`,
        `docs/README.md` and `LICENSE`.

    Raises:
        MedrlError: If the model is damaged, of another task, or the folder cannot be written.
    """
    from medrl.bundles.card import render_card
    from medrl.bundles.folder import load_weights

    manifest = read_manifest(bundle)
    if manifest["task"] != "landmark":
        raise MedrlError(
            f"{bundle} is a {manifest['task']} model: only landmark models are exported"
        )
    load_weights(bundle)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedrlError(f"{folder} exists and is not empty: choose another folder")
    title = str(manifest["card"].get("title", manifest["name"]))
    readme = _README.format(title=title, name=manifest["name"], card=render_card(manifest))
    work = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        new = work / "new"
        for name in ("configs", "models", "docs"):
            (new / name).mkdir(parents=True)
        _write_json(new / "configs" / "metadata.json", metadata(manifest))
        _write_json(new / "configs" / "inference.json", inference_config())
        (new / "docs" / "README.md").write_text(readme, encoding="utf-8")
        for name in (WEIGHTS_FILE, MANIFEST_FILE):
            shutil.copyfile(bundle / name, new / "models" / name)
        if (bundle / LICENCE_FILE).is_file():
            shutil.copyfile(bundle / LICENCE_FILE, new / "LICENSE")
        new.replace(folder)
    except OSError as error:
        raise MedrlError(f"cannot write the bundle to {folder}: {error.strerror}") from None
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    return folder


def inference_config() -> dict[str, Any]:
    """Contents of `configs/inference.json`: what `python -m monai.bundle run` executes."""
    return {
        "bundle_root": ".",
        "images": [],
        "output_dir": "$@bundle_root + '/eval'",
        "device": "cpu",
        "detector": {
            "_target_": "medrl.bundles.monai.load_detector",
            "folder": "$@bundle_root + '/models'",
            "device": "@device",
        },
        "evaluator": {
            "_target_": "medrl.bundles.monai.ScanEvaluator",
            "detector": "@detector",
            "images": "@images",
            "output_dir": "@output_dir",
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(manifest: Manifest) -> dict[str, Any]:
    """Contents of `configs/metadata.json`."""
    card, settings = manifest["card"], manifest["settings"]
    window = int(settings["window"])
    count = len(manifest["landmarks"])
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by medrl {medrl.__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medrl": medrl.__version__},
        "name": manifest["name"],
        "task": "Detection of anatomical landmarks by reinforcement-learning agents",
        "description": str(card.get("title", manifest["name"])),
        "authors": str(card.get("authors", "The medrl developers")),
        "copyright": str(card.get("licence", "see LICENSE")),
        "data_source": str(card.get("training_data", "see docs/README.md")),
        "data_type": "nifti, nrrd, mha, dicom",
        "image_classes": f"single-channel volume, modality {settings.get('modality', 'any')}",
        "intended_use": str(card.get("intended_use", "Research; not a medical device")),
        "landmarks": manifest["landmarks"],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": str(settings.get("modality", "any")),
                    "num_channels": 1,
                    "spatial_shape": [window, window, window],
                    "dtype": "float32",
                    "value_range": [0, 1.5],
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "action values",
                    "format": "values of six moves for each landmark",
                    "num_channels": 6 * count,
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {},
                }
            },
        },
    }


def load_detector(folder: str, device: str = "cpu") -> LandmarkDetector:
    """Load the model of a MONAI Bundle; named in its configuration.

    Args:
        folder: Its folder `models`.
        device: Torch device.

    Returns:
        The detector.

    Raises:
        MedrlError: If the model is damaged.
    """
    from medrl.landmark.detect import LandmarkDetector

    return LandmarkDetector.load(folder, device=device)


class ScanEvaluator:
    """Searches scans and writes the results; named in the configuration of a MONAI Bundle."""

    def __init__(
        self, detector: LandmarkDetector, images: Sequence[str] | str, output_dir: str
    ) -> None:
        """Set up what to do.

        Args:
            detector: The model.
            images: Scans.
            output_dir: Folder to write into.
        """
        self.detector = detector
        self.images = [Path(image) for image in ([images] if isinstance(images, str) else images)]
        self.output_dir = Path(output_dir)

    def run(self) -> None:
        """Do it.

        Raises:
            MedrlError: If no scan is named, one cannot be used, or the folder cannot be written to.
        """
        from medrl.files import distinct_stems, prepare_folder
        from medrl.landmark.results import write_results
        from medrl.volume.read import read

        if not self.images:
            raise MedrlError("no scan is named: add --images \"['SCAN.nii.gz']\"")
        folder = prepare_folder(self.output_dir)
        for path, stem in zip(self.images, distinct_stems(self.images), strict=True):
            scan = read(path)
            write_results(folder, stem, scan, self.detector.detect(scan))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
