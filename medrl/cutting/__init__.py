"""Cutting agents: they carry an outline through slices and frames, and know where it ends."""
