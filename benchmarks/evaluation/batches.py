"""Many heads to work through: copies of the MNI152 template, no two alike."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np


def write_heads(folder: Path, count: int, *, spacing: int = 1) -> list[Path]:
    """Write copies of the template that nilearn brings, each with noise and a place of its own.

    Args:
        folder: Made if missing.
        count: How many.
        spacing: Voxel size in mm, 1 or 2.

    Returns:
        The files, NIfTI, 16-bit numbers.
    """
    from nilearn.datasets import load_mni152_template

    folder.mkdir(parents=True, exist_ok=True)
    template = load_mni152_template(resolution=spacing)
    volume = template.get_fdata(dtype=np.float32)
    volume *= 1000 / volume.max()
    files = []
    for number in range(count):
        chance = np.random.default_rng(number)
        noise = chance.normal(0, 8, volume.shape).astype(np.float32)
        head = np.clip(volume * chance.uniform(0.8, 1.2) + noise, 0, None).astype(np.int16)
        affine = template.affine.copy()
        affine[:3, 3] += chance.uniform(-10, 10, 3)
        files.append(folder / f"head{number:03d}.nii.gz")
        nib.Nifti1Image(head, affine).to_filename(files[-1])
    return files
