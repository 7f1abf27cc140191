"""`medrl evaluate`: a model's errors on labelled scans, next to the baselines."""

from __future__ import annotations

from collections.abc import Sequence

from medrl.cli.evaluate.landmark import Landmark, run_landmark
from medrl.cli.evaluate.registration import Registration, run_registration
from medrl.cli.evaluate.seednet import SeedNet, run_seednet
from medrl.cli.terminal import parse

__all__ = [
    "Landmark",
    "Registration",
    "SeedNet",
    "main",
    "run_landmark",
    "run_registration",
    "run_seednet",
]


def main(argv: Sequence[str]) -> int:
    """Run `medrl evaluate`.

    Args:
        argv: What follows `medrl evaluate` on the command line.

    Returns:
        Exit code: 0, or 1 if some scans could not be used.

    Raises:
        MedrlError: If nothing can be measured.
    """
    command: Landmark | SeedNet | Registration = parse(
        {"landmark": Landmark, "seednet": SeedNet, "registration": Registration},
        argv,
        prog="medrl evaluate",
    )
    if isinstance(command, Landmark):
        return run_landmark(command)
    if isinstance(command, SeedNet):
        return run_seednet(command)
    return run_registration(command)
