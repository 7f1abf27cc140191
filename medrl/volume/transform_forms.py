"""The forms that transform files have, by the programs that write them."""

from __future__ import annotations

from typing import Literal

Form = Literal["itk", "matrix", "ants", "fsl", "lta", "register-dat", "afni", "minc", "elastix"]

#: What a file of each form holds.
FORMS: dict[Form, str] = {
    "itk": "a transform of ITK, fixed to moving (LPS mm)",
    "matrix": "a 4x4 world matrix as of greedy, c3d, NiftyReg or MRtrix, fixed to moving (RAS mm)",
    "ants": "a transform of ANTs, fixed to moving (LPS mm)",
    "fsl": "a matrix of FSL's FLIRT, moving to fixed (voxels times their sizes)",
    "lta": "an LTA of FreeSurfer, source (moving) to destination (fixed)",
    "register-dat": "a register.dat of FreeSurfer, fixed (anatomy) to moving",
    "afni": "a matrix of AFNI, base (fixed) to source (moving) (LPS mm)",
    "minc": "a transform of MINC, moving to fixed (RAS mm)",
    "elastix": "a transform of elastix, fixed to moving (LPS mm)",
}
