"""Films and scans of four dimensions: a time slider, outlines that are carried, objects tracked."""
