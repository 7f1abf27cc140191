"""`medrl pose`: let a model find how a scan is turned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medrl.cli.guard import Refit, refit
from medrl.systems import System


@dataclass(frozen=True, kw_only=True)
class Pose(Refit):
    """Let a landmark model find how a scan is turned, whatever way that is.

    `medrl train landmark --pose any` makes models that do. This is for one whose training scans lie
    about alike: what they look like is added to the model, and its weights stay as they are. Scans
    are laid straight before agents search them, but for those that show only a part.
    """


def main(argv: Sequence[str]) -> int:
    """Run `medrl pose`.

    Args:
        argv: What follows `medrl pose` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If the model or the data are unusable.
    """
    return refit(Pose, System.fit_pose, argv, prog="medrl pose")
