"""What a transform file is, by what it holds."""

from __future__ import annotations

from pathlib import Path

from medrl.errors import MedrlError
from medrl.volume._itk_files import BANNER, is_elastix
from medrl.volume._linear_forms import MINC_BANNER, is_register_dat, numbers
from medrl.volume.transform_forms import Form

ITK_ENDINGS = (".tfm", ".h5", ".hdf5")
_FSL_ENDINGS = (".fsl.mat", ".fsl")
_UNKNOWN = (
    "is no transform that medrl knows: ITK and ANTs (.tfm, .h5, .mat, .txt), a 4x4 matrix in text, "
    "FSL (.mat), LTA, register.dat, AFNI (.aff12.1D), MINC (.xfm), elastix"
)


def form_of(file: Path, content: bytes, text: str) -> Form:
    """What a file is; of 4x4 numbers, which may be FSL's, ``matrix``.

    Args:
        file: It; its name counts where the content leaves it open.
        content: What it holds.
        text: The same as text.

    Raises:
        MedrlError: If it is none of them.
    """
    ending = file.suffix.lower()
    if content[:6] == b"MATLAB":
        raise MedrlError(
            "is a file of MATLAB 5 or later, as of SPM, which holds no transform between two scans "
            "that medrl knows; those of ANTs are of MATLAB 4"
        )
    if text.startswith(BANNER):
        return "itk"
    if text.startswith(MINC_BANNER):
        return "minc"
    if is_elastix(text):
        return "elastix"
    if b"\0" in content[:512]:
        return "ants" if ending == ".mat" else "itk"
    rows = numbers(text)
    if rows is None:
        if ending == ".lta" or "src volume info" in text:
            return "lta"
        if is_register_dat(text):
            return "register-dat"
        if ending in ITK_ENDINGS:
            return "itk"
        raise MedrlError(_UNKNOWN)
    if rows.shape[1] == 12 or (ending == ".1d" and rows.shape == (3, 4)):
        return "afni"
    if rows.shape == (3, 4):
        raise MedrlError(
            "holds 3 x 4 numbers, of which several programs think differently: name "
            "its form, such as matrix or afni"
        )
    if rows.shape != (4, 4):
        raise MedrlError(f"holds {rows.shape[0]} x {rows.shape[1]} numbers, and {_UNKNOWN}")
    return "fsl" if file.name.lower().endswith(_FSL_ENDINGS) else "matrix"
