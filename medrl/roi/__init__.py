"""Batched multi-scale cropping of 3D windows, on the CPU and on CUDA."""

from medrl.roi.cropping import crop

__all__ = ["crop"]
