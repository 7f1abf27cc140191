"""What agents search for: the words, and how it is shown, corrected and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from medrl_napari.space import Floats

if TYPE_CHECKING:
    from pathlib import Path

    from monai.data.meta_tensor import MetaTensor
    from napari.layers import Layer

    from medrl.data.adding import Image
    from medrl_napari.jobs import Report
    from medrl_napari.scans import Shown

#: What a person moved or added (RAS mm) or took away (None), by name.
Corrections = dict[str, Floats | None]


@dataclass(frozen=True)
class Kind:
    """What agents of a system search for.

    An *item* is one such thing: a frozen dataclass with ``name``, ``status``, ``confidence`` and
    ``note``, such as :class:`medrl.landmark.detect.Landmark`.

    Attributes:
        system: Name of the system.
        one: What an item is called.
        several: What items are called.
        layer: What their layer is called.
        contents: Under which key :meth:`medrl.systems.System.contents` names what a model knows.
        sure: Of what event an item's confidence is the probability.
        meanings: What each status means.
        title: An item's name, for the eye.
        color: An item's colour, if it is in the scan.
        where: Where an item is, in words.
        items: Those of a result.
        value: Where an item is, in numbers, RAS mm.
        search: Calls the predictor with scans by role, and names.
        correct: A result with corrections.
        add_sample: Adds a scan with items to a datalist.
    """

    system: str
    one: str
    several: str
    layer: str
    contents: str
    sure: str
    meanings: Mapping[str, str]
    title: Callable[[str], str]
    color: Callable[[Any], str]
    where: Callable[[Any], str]
    items: Callable[[Any], Sequence[Any]]
    value: Callable[[Any], Floats]
    search: Callable[[Any, Mapping[str, MetaTensor], Sequence[str], Report], Any]
    correct: Callable[[Any, Corrections], Any]
    add_sample: Callable[[Path, Image, Mapping[str, Floats]], Path]


class Editor(Protocol):
    """Layers that show items, and tell what a person does to them."""

    @property
    def layer(self) -> Layer:
        """The one that is edited."""

    def renew(self, shown: Shown, items: Sequence[Any]) -> None:
        """Show the items of another search."""

    def show(self, items: Sequence[Any]) -> None:
        """Show items as they now are; absent ones are not shown."""

    def place(self, name: str) -> Floats | None:
        """Where an item is in napari's world, (3,); None if it is not in the scan."""

    def select(self, name: str | None) -> None:
        """Point an item out."""

    def set_aside(self) -> None:
        """Let the layers go, and call them what they now are: of before."""

    def release(self) -> None:
        """Follow the layers no more."""
