"""medrl in napari: see the agents work, take part, and save what lands in the right place."""

# Before anything here imports MONAI: medrl has it loaded by parts.
import medrl  # noqa: F401
