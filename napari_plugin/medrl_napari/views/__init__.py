"""Linked orthogonal views, and what they show as black and white."""
