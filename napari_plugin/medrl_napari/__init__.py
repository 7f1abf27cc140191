"""medrl in napari: see the agents work, take part, and save what lands in the right place."""
