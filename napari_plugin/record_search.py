"""Record the search of the plugin's sample again: `python napari_plugin/record_search.py`, offline.

To be run when the model brain-t1 or the way its agents search has changed; a test tells.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from medrl import LandmarkDetector
from medrl.trajectory import AgentPath, Trajectory, write_trajectory
from medrl_napari.samples import RECORDED, sample_scan

FOLDER = Path(__file__).parent / "medrl_napari" / "samples"
#: Micrometres are as good as exact, and half the size.
_DIGITS = 3


def main() -> None:
    """Write the trajectory."""
    found = LandmarkDetector.load("brain-t1").detect(sample_scan()).trajectory
    scan = "MNI152 T1 template of nilearn, 1 mm"
    trajectory = Trajectory(
        found.task, tuple(map(rounded, found.agents)), {**found.provenance, "scan": scan}
    )
    FOLDER.mkdir(exist_ok=True)
    write_trajectory(FOLDER / RECORDED, trajectory)
    print(f"{FOLDER / RECORDED}: {(FOLDER / RECORDED).stat().st_size / 1024:.0f} KiB")


def rounded(agent: AgentPath) -> AgentPath:
    """An agent's path with fewer digits."""
    answer = agent.answer_world
    return replace(
        agent,
        positions_world=np.round(agent.positions_world, _DIGITS),
        values=np.round(agent.values, _DIGITS),
        confidence=None if agent.confidence is None else round(agent.confidence, _DIGITS),
        answer_world=None if answer is None else np.round(answer, _DIGITS),
    )


if __name__ == "__main__":
    main()
