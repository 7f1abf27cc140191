"""`medrl demo`: the main job, in a real head MRI that a plain install brings along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from medrl.cli import verb
from medrl.cli.output import say
from medrl.cli.terminal import parse
from medrl.errors import MedrlError
from medrl.files import prepare_folder
from medrl.systems import of_model

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
        Exit code: 0, or 1 if the model fails.

    Raises:
        MedrlError: If the template or the model is not there or the folder cannot be written to.
    """
    command: Demo = parse(Demo, argv, prog="medrl demo")
    prepare_folder(command.out)
    scan = command.out / f"{_STEM}.nii.gz"
    write_template(scan)
    system, bundle = of_model(command.model)
    line = [str(scan), "-o", str(command.out), "--model", str(bundle), "--device", command.device]
    code = verb.main(system, line)
    if code == 0:
        picture = command.out / f"{_STEM}.png"
        say(f"Look at {picture}; in 3D Slicer, drag {scan.name} and the .mrk.json in")
    return code


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
