"""What a search has found in a scan, and what a person made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medrl.errors import MedrlError
from medrl_napari.scans import Shown
from medrl_napari.search.kind import Corrections, Kind
from medrl_napari.space import Floats


@dataclass(eq=False)
class Search:
    """One search.

    Attributes:
        kind: What for.
        scans: The scans by role, as they are shown; the first is the one whose world all is in.
        name: What its layer was called.
        found: The system's result.
        moved: What a person changed of it.
        unsaved: Whether some of that is in no file.
    """

    kind: Kind
    scans: Mapping[str, Shown]
    name: str
    found: Any
    moved: Corrections = field(default_factory=dict)
    unsaved: bool = False
    _before: list[Corrections] = field(default_factory=list)

    @property
    def shown(self) -> Shown:
        """The scan on which all is shown."""
        return next(iter(self.scans.values()))

    @property
    def now(self) -> Any:
        """The result with the corrections."""
        return self.kind.correct(self.found, self.moved)

    @property
    def items(self) -> dict[str, Any]:
        """What there is as it now stands, by name."""
        return {item.name: item for item in self.kind.items(self.now)}

    def change(self, corrections: Corrections) -> None:
        """Correct items.

        Raises:
            MedrlError: If one cannot be so; nothing has changed then.
        """
        moved = {**self.moved, **corrections}
        self.kind.correct(self.found, moved)
        self._set(moved)

    def reset(self, name: str) -> bool:
        """Forget what a person did to an item; False if that was nothing."""
        there = name in self.moved
        if there:
            self._set({key: value for key, value in self.moved.items() if key != name})
        return there

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._before)

    def undo(self) -> tuple[str, ...]:
        """Take the last change back; the names of what it had changed."""
        if not self._before:
            return ()
        now, self.moved = self.moved, self._before.pop()
        self.unsaved = bool(self.moved)
        return tuple(
            name
            for name in {**self.moved, **now}
            if self.moved.get(name, name) is not now.get(name, name)
        )

    @property
    def stem(self) -> str:
        """What files of this scan are called."""
        return self.shown.stem(self.name)

    def write(self, folder: Path, **options: Any) -> dict[str, Path]:
        """Write what the system's command writes, with the corrections.

        Args:
            folder: Made if missing.
            options: Of the result's ``save``.

        Returns:
            Paths by kind.

        Raises:
            MedrlError: If they cannot be written.
        """
        result = replace(self.now, scan=self.shown.scan)
        paths: dict[str, Path] = result.save(folder, self.stem, **options)
        self.unsaved = False
        return paths

    def for_training(self, names: Sequence[str]) -> dict[str, Floats]:
        """Items as they now stand, RAS mm, by name.

        Args:
            names: Which; absent ones are left out.

        Raises:
            MedrlError: If there is none, or a scan is in no file that a datalist could name.
        """
        items = self.items
        there = {name: items[name] for name in names if items[name].status != "absent"}
        if not there:
            raise MedrlError(
                f"Tick the {self.kind.several} that are right: they go into the datalist."
            )
        if not all(shown.file for shown in self.scans.values()):
            raise MedrlError("This scan is not in a file: save it, open that, and search it.")
        return {name: self.kind.value(item) for name, item in there.items()}

    def add_to(self, datalist: Path, values: Mapping[str, Floats]) -> None:
        """Add the scan with items to a datalist, made if missing.

        Raises:
            MedrlError: If it cannot be written.
        """
        files = {role: Path(shown.file) for role, shown in self.scans.items()}
        self.kind.add_sample(datalist, files.get("scan", files), values)
        self.unsaved = False

    def _set(self, moved: Corrections) -> None:
        self._before.append(self.moved)
        self.moved = moved
        self.unsaved = bool(moved)
