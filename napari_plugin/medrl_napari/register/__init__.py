"""Register scans: the widget and its parts."""
