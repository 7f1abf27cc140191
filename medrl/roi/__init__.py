"""Batched multi-scale cropping of 3D windows, on the CPU and on CUDA."""

from medrl.roi.cropping import crop
from medrl.roi.transforms import CropRoi, CropRoid

__all__ = ["CropRoi", "CropRoid", "crop"]
