"""The record that every agent leaves behind: where it was, what it did, how it ended."""

from medrl.trajectory.io import read_trajectory, write_trajectory
from medrl.trajectory.schema import AgentPath, Trajectory

__all__ = ["AgentPath", "Trajectory", "read_trajectory", "write_trajectory"]
