"""One page that shows a whole run: a picture of each scan, what stands out first."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from medrl.batch.cases import Case, Verb
from medrl.batch.history import entries
from medrl.batch.store import Store
from medrl.files import atomic_path

#: By verb, what tells the scans of a run apart: columns of the table, each of its groups by itself.
_FIGURES: dict[Verb, tuple[str, ...]] = {
    "detect": ("confidence",),
    "segment": ("volume_ml", "agent_seeds"),
    "register": ("confidence", "predicted_error_mm", "turn_deg", "shift_mm", "nmi_after"),
}
_GROUP: dict[Verb, str | None] = {"detect": "landmark", "segment": "target", "register": None}
_BINS = 24
#: Robust standard deviations beyond which a scan stands out.
_OUTLIER = 3.5
#: Of fewer values none stands out.
_LEAST = 5
#: How many reasons to look at a scan are told.
_REASONS = 3
_STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; background: #0b0d10; color: #e8eaed; margin: 2em; }
h1 { font-size: 1.3em; } h2 { font-size: 1.05em; margin-top: 2em; } .faint { color: #9aa0a6; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 12px; }
.card { background: #16191d; border-radius: 6px; padding: 8px; overflow-wrap: anywhere; }
.card img { width: 100%; border-radius: 4px; } .out { outline: 2px solid #ff6b6b; }
.plots { display: flex; flex-wrap: wrap; gap: 18px; } .why { color: #ffb3b3; }
td, th { text-align: left; padding: 2px 12px 2px 0; vertical-align: top; } a { color: inherit; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
"""


class _Reason(NamedTuple):
    """Why a scan stands out: how far a figure is from the others', and what it is."""

    score: float
    text: str


def write_report(store: Store, verb: Verb, fingerprint: Mapping[str, Any]) -> None:
    """Write ``report.html``; it needs no other file.

    Args:
        store: The output folder.
        verb: What was done.
        fingerprint: What the page says of the run, in terms of JSON.

    Raises:
        MedrlError: If it cannot be written.
    """
    done, failed = store.records(), store.failures()
    reasons = _reasons(done, verb)
    scores = {name: found[0].score if found else 0.0 for name, found in reasons.items()}
    order = sorted(done, key=lambda name: (-scores[name], name))
    cards = [_card(store, name, done[name], reasons[name]) for name in order]
    failures = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(known['reason']))}</td></tr>"
        for name, known in failed.items()
    )
    said = {key: value for key, value in fingerprint.items() if value and key != "verb"}
    told = ", ".join(f"{escape(key)} {escape(_words(value))}" for key, value in said.items())
    outliers = sum(score > _OUTLIER for score in scores.values())
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>medrl batch {verb}</title>
<style>{_STYLE}</style>
<h1>medrl batch {verb}: {len(done)} done, {len(failed)} failed, {outliers} stand out</h1>
<p class="faint">{told}.<br>{_when(store)}For research; not for diagnosis.</p>
{f"<h2>Failed</h2><table>{failures}</table>" if failed else ""}
<h2>Distributions</h2><div class="plots">{_plots(done, verb)}</div>
{_summary(done, verb)}
<h2>Scans, what stands out first</h2><div class="cards">{"".join(cards)}</div></html>
"""
    with atomic_path(store.root / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


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
    times = f"{runs[0]['started']} to {last}{many} on {hosts}, medrl {runs[-1]['medrl']}"
    return f"{escape(times)}.<br>"


def _values(
    done: Mapping[str, Mapping[str, Any]], verb: Verb
) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """Figures of all scans by column and group: (case, value) each."""
    found: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)
    group = _GROUP[verb]
    for name, record in done.items():
        for row in record["rows"]:
            for column in _FIGURES[verb]:
                value = row.get(column)
                if isinstance(value, int | float) and not isinstance(value, bool):
                    key = (column, str(row[group]) if group else "")
                    found[key].append((name, float(value)))
        if verb == "detect":
            absent = sum(row.get("status") == "absent" for row in record["rows"])
            found["absent", ""].append((name, absent))
    return found


def _reasons(done: Mapping[str, Mapping[str, Any]], verb: Verb) -> dict[str, list[_Reason]]:
    """For each scan how far its figures lie from the others', the farthest first."""
    reasons: dict[str, list[_Reason]] = {name: [] for name in done}
    for (column, group), pairs in _values(done, verb).items():
        values = np.array([value for _, value in pairs])
        if len(values) < _LEAST:
            continue
        middle = np.median(values)
        # Iglewicz and Hoaglin, 1993; where most are alike the mean deviation stands in.
        spread = (
            1.4826 * np.median(np.abs(values - middle)) or 1.2533 * np.abs(values - middle).mean()
        )
        what = f"{column} of {group}" if group else column
        for name, value in pairs:
            if spread > 0:
                text = f"{what} {value:.3g}, others about {middle:.3g}"
                reasons[name].append(_Reason(abs(value - middle) / spread, text))
    return {name: sorted(found, reverse=True) for name, found in reasons.items()}


def _card(store: Store, name: str, record: Mapping[str, Any], reasons: Sequence[_Reason]) -> str:
    """A scan: its picture, why it stands out, what is to be said of it, a link to its folder."""
    case = Case.of_plain(record["case"])
    far = [reason for reason in reasons if reason.score > _OUTLIER]
    why = "".join(f'<br><span class="why">{escape(r.text)}</span>' for r in far[:_REASONS])
    if len(far) > _REASONS:
        why += f'<br><span class="why">and {len(far) - _REASONS} more</span>'
    image = ""
    if picture := record.get("picture"):
        small = store.thumbnail(case, str(picture))
        if small is None:
            why += "<br>its picture cannot be read"
        else:
            data = f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"
            link = quote(f"{case.folder}/{picture}")
            image = f'<a href="{link}"><img alt="" loading="lazy" src="{data}"></a>'
    warnings = "".join(f"<br>{escape(str(line))}" for line in record["warnings"])
    seconds = sum(record["seconds"].values())
    return (
        f'<div class="card{" out" if far else ""}">{image}'
        f'<b><a href="{quote(case.folder)}/">{escape(name)}</a></b>'
        f'<span class="faint"> {seconds:.1f} s</span>{why}{warnings}</div>'
    )


def _plots(done: Mapping[str, Mapping[str, Any]], verb: Verb) -> str:
    """A histogram of each figure, all groups together, and of the time."""
    if not done:
        return ""
    columns: dict[str, list[float]] = defaultdict(list)
    for (column, _), pairs in _values(done, verb).items():
        columns[column] += [value for _, value in pairs]
    columns["seconds"] = [sum(record["seconds"].values()) for record in done.values()]
    return "".join(_histogram(name, np.array(values)) for name, values in columns.items())


def _summary(done: Mapping[str, Mapping[str, Any]], verb: Verb) -> str:
    """A table with the middle and the ends of each figure, by group."""
    rows = []
    for (column, group), pairs in sorted(_values(done, verb).items()):
        values = np.array([value for _, value in pairs])
        cells = (len(values), np.median(values), values.min(), values.max())
        figures = "".join(f'<td class="n">{cell:.3g}</td>' for cell in cells)
        rows.append(f"<tr><td>{escape(column)}</td><td>{escape(group)}</td>{figures}</tr>")
    if not rows:
        return ""
    head = "".join(f"<th>{text}</th>" for text in ("", "", "values", "median", "least", "most"))
    return f"<details><summary>In figures</summary><table>{head}{''.join(rows)}</table></details>"


def _histogram(title: str, values: NDArray[np.float64], size: Sequence[int] = (220, 70)) -> str:
    """Bars as SVG, with the least and the greatest value under them."""
    if not len(values):
        return ""
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - 0.5, high + 0.5  # all are the same but for rounding
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    width, height = size[0] / _BINS, size[1]
    bars = "".join(
        f'<rect x="{n * width:.1f}" y="{height * (1 - c / counts.max()):.1f}" '
        f'width="{width - 1:.1f}" height="{height * c / counts.max():.1f}" fill="#48dbfb"/>'
        for n, c in enumerate(counts)
        if c
    )
    ends = (
        f'<text x="0" y="{height + 14}">{edges[0]:.3g}</text>'
        f'<text x="{size[0]}" y="{height + 14}" text-anchor="end">{edges[-1]:.3g}</text>'
    )
    return (
        f'<div>{escape(title)}, {len(values)}<br><svg width="{size[0]}" height="{height + 18}" '
        f'fill="#9aa0a6" font-size="11">{bars}{ends}</svg></div>'
    )
