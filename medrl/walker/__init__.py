"""The random walker: from seeds to a segmentation, and its solvers on CPU and GPU."""
