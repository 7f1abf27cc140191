"""Heads in a frame of their own anatomy: the AC-PC frame of surgeons, and MNI space."""
