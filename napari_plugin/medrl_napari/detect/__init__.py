"""Detect landmarks: the widget and its parts."""
