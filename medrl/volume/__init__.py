"""Scans in and out: reading, orientation, spacing, intensity, pyramids, voxel to world."""
