"""The record that every agent leaves behind: where it was, what it did, how it ended."""

from medrl.trajectory.io import read_trajectory, write_trajectory
from medrl.trajectory.live import Recording, Step, Watch
from medrl.trajectory.schema import AgentPath, Trajectory

__all__ = [
    "AgentPath",
    "Recording",
    "Step",
    "Trajectory",
    "Watch",
    "read_trajectory",
    "write_trajectory",
]
