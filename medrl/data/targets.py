"""What the values of a mask are called."""

from __future__ import annotations

from dataclasses import dataclass

from medrl.errors import MedrlError


@dataclass(frozen=True)
class Target:
    """A kind of object that a model can be asked for.

    Attributes:
        name: What it is called.
        labels: Values of the mask that make it up.
    """

    name: str
    labels: tuple[int, ...] = (1,)


def parse_target(text: str) -> Target:
    """Read ``NAME=LABEL,LABEL,...``; without labels it is label 1."""
    name, _, labels = text.partition("=")
    values = labels.split(",") if labels else ["1"]
    if not name or not all(value.strip().isdecimal() and int(value) > 0 for value in values):
        raise MedrlError(f"{text!r} is not NAME=LABEL,LABEL,... with labels above 0")
    return Target(name, tuple(int(value) for value in values))
