"""Segment with seeds: the widget and its parts."""
