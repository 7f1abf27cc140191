"""Boxes around organs."""
