"""Many scans: found, planned, worked through by engines that survive, and reported."""
