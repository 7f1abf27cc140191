"""Landmark agents: find anatomical points by walking through a scan, coarse to fine."""
