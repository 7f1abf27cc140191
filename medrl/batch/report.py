"""One page that shows a whole run: a picture of each scan, what stands out first."""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from medrl.batch.cases import Case
from medrl.batch.found import LeftOut
from medrl.batch.history import entries
from medrl.batch.store import Store
from medrl.files import atomic_path, printable
from medrl.systems import System

_BINS = 24
#: Width and height of a histogram, in pixels.
_WIDTH, _HEIGHT = 220, 70
#: Robust standard deviations beyond which a scan stands out.
_OUTLIER = 3.5
#: Of fewer values none stands out.
_MIN_VALUES = 5
#: How many reasons to look at a scan are given.
_REASONS = 3

#: What is known of the cases that are done, by name.
Done = Mapping[str, Mapping[str, Any]]
#: Figures of all scans by column and group: (case, value) each.
Values = Mapping[tuple[str, str], Sequence[tuple[str, float]]]


class _Reason(NamedTuple):
    """Why a scan stands out: how far a figure is from the others', and what it is."""

    score: float
    text: str


def write_report(
    store: Store,
    system: System,
    fingerprint: Mapping[str, Any],
    left_out: Sequence[LeftOut] = (),
) -> None:
    """Write ``report.html``; it needs no other file.

    Args:
        store: The output folder.
        system: What was done; its `figures` tell the scans apart, each `group` by itself.
        fingerprint: What the page says of the run, in terms of JSON.
        left_out: What was met and is not worked on.

    Raises:
        MedrlError: If it cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    done, failed = store.records(), store.failures()
    values = _values(done, system)
    reasons = _reasons(done, values)
    scores = {name: found[0].score if found else 0.0 for name, found in reasons.items()}
    doubtful = {name for name, record in done.items() if record.get("doubtful")}
    order = sorted(done, key=lambda name: (name not in doubtful, -scores[name], name))
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = files("medrl.batch").joinpath("report.html.jinja").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        verb=system.verb,
        done=len(done),
        failures={name: known["reason"] for name, known in failed.items()},
        left_out=_left_out(left_out),
        doubtful=len(doubtful),
        outliers=sum(score > _OUTLIER for score in scores.values()),
        task=", ".join(
            f"{key} {_words(value)}"
            for key, value in fingerprint.items()
            if value and key != "verb"
        ),
        when=_when(store),
        plots=_plots(done, values),
        figures=[_summary(*key, pairs) for key, pairs in sorted(values.items())],
        cards=[_card(store, name, done[name], reasons[name]) for name in order],
        width=_WIDTH,
        height=_HEIGHT,
    )
    with atomic_path(store.root / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _left_out(left_out: Sequence[LeftOut]) -> list[tuple[str, int, str]]:
    """Each reason, for how many files it goes, and one of them."""
    first = {one.reason: one.path for one in reversed(left_out)}
    counts = Counter(one.reason for one in left_out).most_common()
    return [(reason, count, printable(str(first[reason]))) for reason, count in counts]


def _words(value: Any) -> str:
    """A value for a person."""
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "yes" if value is True else str(value)


def _when(store: Store) -> str:
    """When and where the runs were."""
    runs = entries(store)
    if not runs:
        return ""
    hosts = ", ".join(sorted({str(run["host"]) for run in runs}))
    many = f" in {len(runs)} runs" if len(runs) > 1 else ""
    last = runs[-1]["ended"] or runs[-1]["started"]
    return f"{runs[0]['started']} to {last}{many} on {hosts}, medrl {runs[-1]['medrl']}."


def _values(done: Done, system: System) -> Values:
    found: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    for name, record in done.items():
        for row in record["rows"]:
            for column in system.figures:
                value = row.get(column)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    group = str(row.get(system.group, "")) if system.group else ""
                    found[column, group].append((name, float(value)))
        for column, value in system.case_figures(record["rows"]).items():
            found[column, ""].append((name, float(value)))
    return found


def _reasons(done: Done, values: Values) -> dict[str, list[_Reason]]:
    """For each scan how far its figures lie from the others', the farthest first."""
    from scipy.stats import median_abs_deviation

    reasons: dict[str, list[_Reason]] = {name: [] for name in done}
    for (column, group), pairs in values.items():
        numbers = np.array([value for _, value in pairs])
        if len(numbers) < _MIN_VALUES:
            continue
        middle = np.median(numbers)
        # Iglewicz and Hoaglin, 1993; where most are alike the mean deviation stands in.
        spread = (
            median_abs_deviation(numbers, scale="normal")
            or np.sqrt(np.pi / 2) * np.abs(numbers - middle).mean()
        )
        what = f"{column} of {group}" if group else column
        for name, value in pairs:
            if spread > 0:
                text = f"{what} {value:.3g}, others about {middle:.3g}"
                reasons[name].append(_Reason(float(abs(value - middle) / spread), text))
    return {name: sorted(found, reverse=True) for name, found in reasons.items()}


def _card(
    store: Store, name: str, record: Mapping[str, Any], reasons: Sequence[_Reason]
) -> dict[str, Any]:
    """A scan: its picture, why it stands out, what is to be said of it, a link to its folder."""
    case = Case.of_plain(record["case"])
    far = [reason.text for reason in reasons if reason.score > _OUTLIER]
    notes = far[:_REASONS]
    if len(far) > _REASONS:
        notes.append(f"and {len(far) - _REASONS} more")
    link = image = None
    if picture := record.get("picture"):
        small = store.thumbnail(case, str(picture))
        if small is None:
            notes.append("its picture cannot be read")
        else:
            image = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
            link = quote(f"{case.folder}/{picture}")
    return {
        "name": name,
        "folder": f"{quote(case.folder)}/",
        "link": link,
        "image": image,
        "outlier": bool(far) or bool(record.get("doubtful")),
        "notes": notes,
        "warnings": [str(line) for line in record["warnings"]],
        "seconds": sum(record["seconds"].values()),
    }


def _summary(
    column: str, group: str, pairs: Sequence[tuple[str, float]]
) -> tuple[str, str, list[str]]:
    """The middle and the ends of a figure."""
    numbers = np.array([value for _, value in pairs])
    cells = (len(numbers), np.median(numbers), numbers.min(), numbers.max())
    return column, group, [f"{cell:.3g}" for cell in cells]


def _plots(done: Done, values: Values) -> list[dict[str, Any]]:
    """A histogram of each figure, all groups together, and of the time."""
    if not done:
        return []
    columns: dict[str, list[float]] = defaultdict(list)
    for (column, _), pairs in values.items():
        columns[column] += [value for _, value in pairs]
    columns["seconds"] = [sum(record["seconds"].values()) for record in done.values()]
    return [_histogram(name, np.array(column)) for name, column in columns.items() if column]


def _histogram(title: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Bars of a histogram, as places and sizes in pixels, and its ends."""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5  # all are the same but for rounding
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    width = _WIDTH / _BINS
    heights = _HEIGHT * counts / counts.max()
    return {
        "title": title,
        "count": len(values),
        "bars": [
            (f"{n * width:.1f}", f"{_HEIGHT - height:.1f}", f"{width - 1:.1f}", f"{height:.1f}")
            for n, height in enumerate(heights)
            if height
        ],
        "ends": (f"{edges[0]:.3g}", f"{edges[-1]:.3g}"),
    }
