"""Align scan: the widget."""
