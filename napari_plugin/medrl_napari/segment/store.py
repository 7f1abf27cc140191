"""Seeds that outlive a crash: every session keeps its own in a file of the user's data folder.

The folder is ``medrl/seeds`` where the system keeps data of its users, or below the folder that the
environment variable ``MEDRL_DATA_DIR`` names.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.seednet.seeds import Seed, Who, as_label

#: Sessions of one scan that are kept.
_MOST_FILES = 5
_FORMAT = "medrl seeds 1"


@dataclass(frozen=True, eq=False)
class KeptObject:
    """The seeds of one object.

    Attributes:
        name: What it is called.
        target: Which of the model's kinds of object it is.
        seeds: The user's, and the agent's that were accepted.
    """

    name: str
    target: str
    seeds: tuple[Seed, ...]


def seeds_folder() -> Path:
    """Where seeds are kept."""
    own = os.environ.get("MEDRL_DATA_DIR")
    return (Path(own) if own else user_data_path("medrl", appauthor=False)) / "seeds"


class SeedStore:
    """The kept seeds of one scan: a file for every session, the last few of them."""

    def __init__(self, scan: str) -> None:
        """Look, and write nothing yet.

        Args:
            scan: What tells the scan from others, such as its path.
        """
        self._scan = scan
        self._key = hashlib.sha256(scan.encode()).hexdigest()[:16]
        began = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
        self._path = seeds_folder() / f"{self._key}-{began}.json"
        self._kept: dict[str, Any] | None = None

    def keep(self, objects: Sequence[KeptObject], *, model: str) -> None:
        """Write the seeds of the running session; nothing while there are none.

        Raises:
            MedrlError: If the file cannot be written.
        """
        if not any(o.seeds for o in objects) and not self._path.exists():
            return
        content = {
            "format": _FORMAT,
            "scan": self._scan,
            "model": model,
            "space": "RAS mm",
            "objects": [_to_json(o) for o in objects],
        }
        new = not self._path.exists()
        if content == self._kept and not new:
            # Told once when the user clicks, and again when the session answers.
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MedrlError(f"cannot write {self._path}: {error.strerror}") from None
        with atomic_path(self._path) as draft:
            draft.write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
        self._kept = content
        if new:
            for old in self._files()[_MOST_FILES:]:
                old.unlink(missing_ok=True)

    def earlier(self) -> tuple[KeptObject, ...]:
        """Seeds of the last session but this; none if there are none that can be read."""
        for path in self._files():
            if path == self._path:
                continue
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                objects = tuple(_from_json(entry) for entry in content["objects"])
            except (OSError, ValueError, KeyError, TypeError, MedrlError):
                continue
            if content.get("scan") == self._scan and any(o.seeds for o in objects):
                return objects
        return ()

    def _files(self) -> list[Path]:
        """Of this scan, the latest first."""
        return sorted(seeds_folder().glob(f"{self._key}-*.json"), reverse=True)


def _to_json(kept: KeptObject) -> dict[str, Any]:
    seeds = [
        {
            "label": seed.label_name,
            "who": seed.who,
            "expected_gain": None if math.isnan(seed.expected_gain) else seed.expected_gain,
            "points": seed.points_world.tolist(),
        }
        for seed in kept.seeds
    ]
    return {"name": kept.name, "target": kept.target, "seeds": seeds}


def _from_json(entry: dict[str, Any]) -> KeptObject:
    seeds = []
    for seed in entry["seeds"]:
        gain = math.nan if seed["expected_gain"] is None else float(seed["expected_gain"])
        who: Who = "agent" if seed["who"] == "agent" else "user"
        seeds.append(Seed(seed["points"], as_label(str(seed["label"])), who, gain))
    return KeptObject(str(entry["name"]), str(entry["target"]), tuple(seeds))
