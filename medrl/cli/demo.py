"""`medrl demo`: the main job, in a real head MRI that a plain install brings along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from medrl.cli.detect import Failed, detect_one, show_one
from medrl.cli.terminal import check_device, parse, progress_bars
from medrl.errors import MedrlError
from medrl.files import prepare_folder

if TYPE_CHECKING:
    from nibabel import Nifti1Image

_STEM = "mni152_t1"


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Find landmarks in a real head MRI: the MNI152 T1 template that nilearn brings, offline."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("medrl-demo")
    """Folder to write into; made if missing."""

    model: str = "brain-t1"
    """Name of a model (see `medrl models`) or the folder of one."""

    device: str = "cpu"
    """cpu, cuda or cuda:N."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl demo`.

    Args:
        argv: What follows `medrl demo` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If the template or the model is not there or the folder cannot be written to.
    """
    command: Demo = parse(Demo, argv, prog="medrl demo")
    prepare_folder(command.out)
    scan = command.out / f"{_STEM}.nii.gz"
    with progress_bars() as progress:
        bar = progress.add_task("demo", total=None, more="preparing the scan")
        write_template(scan)
        progress.update(bar, more="loading the model")

        from medrl.landmark.detect import LandmarkDetector

        detector = LandmarkDetector.load(command.model, device=check_device(command.device))
        progress.remove_task(bar)
        outcome = detect_one(
            detector,
            scan,
            folder=command.out,
            stem=_STEM,
            landmarks=(),
            picture=True,
            progress=progress,
        )
    if isinstance(outcome, Failed):
        raise MedrlError(outcome.error)
    show_one(outcome)
    print(
        f"Look at {outcome.files['picture']}; in 3D Slicer, drag {scan.name} and the .mrk.json in"
    )
    return 0


def load_template() -> Nifti1Image:
    """The MNI152 T1 head MRI, 1 mm.

    Raises:
        MedrlError: If nilearn, which brings it, is not installed.
    """
    try:
        from nilearn.datasets import load_mni152_template
    except ImportError:
        raise MedrlError(
            "the sample scan comes with nilearn: pip install 'medrl[samples]'"
        ) from None
    return load_mni152_template(resolution=1)


def write_template(path: Path) -> None:
    """Write the MNI152 T1 head MRI, 1 mm, as NIfTI.

    Args:
        path: Where to.

    Raises:
        MedrlError: If nilearn, which brings it, is not installed.
    """
    template = load_template()
    import nibabel as nib

    from medrl.files import atomic_path

    with atomic_path(path) as temporary:
        nib.save(template, temporary)
