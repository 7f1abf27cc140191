"""Agents that box organs: they move, grow and shrink a box until it fits."""
