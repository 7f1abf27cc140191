"""Models in the MONAI Bundle layout, for `python -m monai.bundle` and what builds on it.

https://docs.monai.io/en/stable/bundle_intro.html, specification of the layout: `mb_specification`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import medrl
from medrl import systems
from medrl.bundles.card import render_card
from medrl.bundles.folder import (
    LICENCE_FILE,
    MANIFEST_FILE,
    WEIGHTS_FILE,
    load_weights,
    read_manifest,
)
from medrl.bundles.manifest import Manifest, named
from medrl.errors import MedrlError
from medrl.files import distinct_stems, prepare_folder, whole_folder

if TYPE_CHECKING:
    from medrl.systems import System

_README = """# {title}

The medrl model `{name}` in the MONAI Bundle layout. It needs `pip install medrl`.

    python -m monai.bundle run --config_file configs/inference.json \\
        --images "['head.nii.gz']" --output_dir out

writes for each scan what `medrl {verb}` does.

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
        MedrlError: If the model is damaged, needs more than a scan, or the folder cannot be
            written.
    """
    manifest = read_manifest(bundle)
    system = systems.get(manifest["task"])
    if len(system.roles) != 1 or not _needs_no_more(system):
        raise MedrlError(
            f"{bundle} is a {system.name} model: only models that take one scan and nothing else "
            "are exported"
        )
    load_weights(bundle)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MedrlError(f"{folder} exists and is not empty: choose another folder")
    title = str(manifest["card"].get("title", manifest["name"]))
    readme = _README.format(
        title=title, name=manifest["name"], verb=system.verb, card=render_card(manifest)
    )
    with whole_folder(folder) as new:
        for name in ("configs", "models", "docs"):
            (new / name).mkdir()
        _write_json(new / "configs" / "metadata.json", metadata(manifest, system))
        _write_json(new / "configs" / "inference.json", inference_config())
        (new / "docs" / "README.md").write_text(readme, encoding="utf-8")
        for name in (WEIGHTS_FILE, MANIFEST_FILE):
            shutil.copyfile(bundle / name, new / "models" / name)
        if (bundle / LICENCE_FILE).is_file():
            shutil.copyfile(bundle / LICENCE_FILE, new / "LICENSE")
    return folder


def _needs_no_more(system: System) -> bool:
    """Whether a scan is all that has to come with a case."""
    try:
        system.check_given(system.given(), system.roles)
    except MedrlError:
        return False
    return True


def inference_config() -> dict[str, Any]:
    """Contents of `configs/inference.json`: what `python -m monai.bundle run` executes."""
    return {
        "bundle_root": ".",
        "images": [],
        "output_dir": "$@bundle_root + '/eval'",
        "device": "cpu",
        "evaluator": {
            "_target_": "medrl.bundles.monai.ScanEvaluator",
            "model": "$@bundle_root + '/models'",
            "images": "@images",
            "output_dir": "@output_dir",
            "device": "@device",
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(manifest: Manifest, system: System) -> dict[str, Any]:
    """Contents of `configs/metadata.json`."""
    card = manifest["card"]
    modality = system.modality(manifest)
    side = manifest["settings"].get("window")
    kinds = named(manifest)
    return {
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by medrl {medrl.__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medrl": medrl.__version__},
        "name": manifest["name"],
        "task": f"Reinforcement-learning agents that {system.summary}",
        "description": str(card.get("title", manifest["name"])),
        "authors": str(card.get("authors", "The medrl developers")),
        "copyright": str(card.get("licence", "see LICENSE")),
        "data_source": str(card.get("training_data", "see docs/README.md")),
        "data_type": "nifti, nrrd, mha, dicom",
        "image_classes": f"single-channel volume, modality {modality}",
        "intended_use": str(card.get("intended_use", "Research; not a medical device")),
        **kinds,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": modality,
                    "num_channels": len(kinds.get("channels", ["image"])),
                    "spatial_shape": [side] * 3 if isinstance(side, int) else [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "values of the agents' actions",
                    "format": system.finds(manifest),
                    "num_channels": 1,
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {},
                }
            },
        },
    }


class ScanEvaluator:
    """Runs a model on scans and writes the results; named in the configuration of a MONAI Bundle.

    Args:
        model: Folder of the model.
        images: Scans.
        output_dir: Folder to write into.
        device: Torch device.
    """

    def __init__(
        self, model: str, images: Sequence[str] | str, output_dir: str, device: str = "cpu"
    ) -> None:
        self.system, bundle = systems.of_model(model)
        self.predictor = self.system.load(bundle, device=device)
        self.images = [Path(image) for image in ([images] if isinstance(images, str) else images)]
        self.output_dir = Path(output_dir)

    def run(self) -> None:
        """Do it.

        Raises:
            MedrlError: If no scan is named, one cannot be used, or the folder cannot be written to.
        """
        from medrl.volume.read import read

        if not self.images:
            raise MedrlError("no scan is named: add --images \"['SCAN.nii.gz']\"")
        folder = prepare_folder(self.output_dir)
        system, options = self.system, self.system.options()
        for path, stem in zip(self.images, distinct_stems(self.images), strict=True):
            scans = {system.roles[0]: read(path)}
            data = system.read(self.predictor, scans, system.given(), options)
            (result,) = system.predict(self.predictor, [data], options)
            if isinstance(result, MedrlError):
                raise result
            system.save(result, folder, stem, options)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
