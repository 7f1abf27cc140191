"""How often registration finds the pose, next to SimpleITK, elastix, ANTs and greedy.

Every answer is written to the result file as soon as it is known; what is there is not run again.
Success: the mean error over the case's points is below 2 mm. As the search from 24 orientations is
hardly ever wrong, wrong answers are also brought about, from single starts astray: medrl must not
trust them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from evaluation.images import Array
from evaluation.registration_pairs import SETS, SUCCESS_MM, PlannedPair, ScanPair
from evaluation.registration_peers import PEERS, Peer, cpu_seconds
from evaluation.results import RESULTS, Claims, save
from monai.data.meta_tensor import MetaTensor

from medrl.bundles import find, read_manifest
from medrl.errors import MedrlError
from medrl.evaluation import Measurements, Row, Table, measure, read_json, summarize, versions
from medrl.registration.register import Registrar

#: Methods that are medrl's, and whether they refine.
OWN = {"medrl": True, "medrl-agent": False}
#: The set of cases on which only those can be measured.
ASTRAY = "ixi-astray"


@dataclass(frozen=True, eq=False)
class Answer:
    """A transform (4, 4), and what medrl says of it; NaN where others say nothing."""

    transform_world: Array
    agent_world: Array | None = None
    confidence: float = float("nan")
    predicted_error_mm: float = float("nan")
    trusted: float = float("nan")


Method = Callable[[ScanPair], Answer]
Record = dict[str, Any]


def own_method(registrar: Registrar, *, refine: bool) -> Method:
    """The model of medrl."""

    def run(case: ScanPair) -> Answer:
        found = registrar.register(
            case.fixed,
            case.moving,
            transform=case.kind,
            refine=refine,
            initial_world=case.start_world,
        )
        return Answer(
            found.transform_world,
            found.agent_transform_world,
            float("nan") if found.confidence is None else found.confidence,
            found.predicted_error_mm,
            float(found.trusted),
        )

    return run


def peer_method(peer: Peer) -> Method:
    """A peer; an exception of its own is an answer that failed."""
    # The first call loads the package: not on a case, where time is taken.
    noise = torch.randn(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    scan = MetaTensor(noise, affine=torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0]).double()))
    with suppress(Exception):
        peer.run(scan, scan, "rigid")

    def run(case: ScanPair) -> Answer:
        try:
            return Answer(peer.run(case.fixed, case.moving, case.kind))
        except Exception as error:  # whatever the package raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise MedrlError(lines[-1][-160:]) from error

    return run


def about(name: str, model: str) -> Record:
    """What a method's records depend on; records of another model are not kept."""
    if name in OWN:
        manifest = read_manifest(find(model))
        return {"model": manifest["name"], "weights_sha256": manifest["weights"]["sha256"]}
    peer = PEERS[name]
    package = {} if peer.package is None else {peer.package: version(peer.package)}
    return {"settings": peer.settings, **package}


def record_of(plan: PlannedPair, name: str, method: Method) -> Record:
    """Measure a method on a case."""
    case = plan.make()
    metrics: dict[str, Callable[[ScanPair, Answer], float]] = {
        case.metric: lambda case, answer: case.measure(answer.transform_world)
    }
    if name in OWN:
        metrics[f"agent_{case.metric}"] = lambda case, answer: case.measure(answer.agent_world)
        for key in ("confidence", "predicted_error_mm", "trusted"):
            metrics[key] = lambda _, answer, key=key: getattr(answer, key)
    # A refusal is no answer, and nobody would trust it.
    measured = measure(
        [plan],
        {name: method},
        metrics,
        load=lambda _: case,
        failed={"confidence": 0.0, "trusted": 0.0},
        clock=cpu_seconds,
    )
    failure = {"failure": measured.failures[0].reason} if measured.failures else {}
    figures = {row.metric: row.value for row in measured.rows}
    return {"band": plan.band, "contrast": plan.contrast, **figures, **failure}


def run(
    path: Path, planned: Sequence[PlannedPair], name: str, method: Method, identity: Record
) -> None:
    """Register every case that the file has no record of."""
    result = read_json(path)
    entry = result.setdefault("methods", {}).setdefault(name, {})
    if any(entry.get(key) != value for key, value in identity.items()):
        entry.clear()
    entry.update({**identity, "environment": versions()})
    records = entry.setdefault("cases", {})
    for number, plan in enumerate(planned):
        if plan.name not in records:
            records[plan.name] = record_of(plan, name, method)
            save(path, result, CLAIMS.get(path.stem))
            print(f"{name} {number + 1}/{len(planned)} {plan.name}: {records[plan.name]}")


def measurements(result: Record) -> Measurements:
    """The records of a file as rows; the band is the group."""
    return Measurements(
        tuple(
            Row(case, record["band"], method, metric, float("nan" if v is None else v), case)
            for method, entry in result.get("methods", {}).items()
            for case, record in entry.get("cases", {}).items()
            for metric, v in record.items()
            if metric not in ("band", "contrast", "failure")
        )
    )


def successes(measured: Measurements, metric: str = "error_mm") -> tuple[int, int]:
    """How many errors are below 2 mm, and of how many."""
    errors = measured.select(metric=metric).values
    return int((errors < SUCCESS_MM).sum()), len(errors)


def flagged(measured: Measurements, *, right: bool) -> tuple[int, int]:
    """How many right (or wrong) answers are not trusted, and of how many."""
    errors = measured.select(metric="error_mm").values
    trusted = measured.select(metric="trusted").values
    chosen = (errors < SUCCESS_MM) == right
    return int((trusted[chosen] == 0).sum()), int(chosen.sum())


def table(result: Record) -> str:
    """All methods of a result file, a row each, in Markdown."""
    measured = measurements(result)
    if "dice" in measured.unique("metric"):
        rows = [
            [method, f["count"], f["mean"], f["min"], _mean_seconds(own)]
            for method, own in measured.by("method").items()
            for f in [summarize(own.select(metric="dice").values)]
        ]
        return Table("", ["method", "cases", "mean Dice", "worst", "CPU-s"], rows).markdown()
    bands = max((own.unique("group") for own in measured.by("method").values()), key=len)
    lines: list[list[object]] = []
    for method, own in measured.by("method").items():
        counts = [successes(own.select(group=band)) for band in bands]
        line: list[object] = [method, *(f"{got}/{of}" for got, of in counts)]
        line += ["{}/{}".format(*successes(own)), _median(own), _mean_seconds(own)]
        line += ["", ""]
        if method in OWN:
            both = (flagged(own, right=False), flagged(own, right=True))
            line[-2] = "{}/{}".format(*successes(own, "agent_error_mm"))
            line[-1] = ", ".join(f"{got}/{of}" for got, of in both)
        lines.append(line)
    header = ["method", *bands, "all", "median mm", "CPU-s", "agent alone"]
    return Table("", [*header, "flagged: wrong, right"], lines).markdown()


def _median(measured: Measurements) -> float | None:
    return summarize(measured.select(metric="error_mm").values)["median"]


def _mean_seconds(measured: Measurements) -> float | None:
    return summarize(measured.select(metric="seconds").values)["mean"]


def poses_in_words(result: Record) -> str:
    """Successes of every method, and for medrl the error and the time."""
    parts = []
    for method, own in measurements(result).by("method").items():
        line = "{} {}/{}".format(method, *successes(own))
        if method == "medrl":
            of_bands = {band: successes(rows) for band, rows in own.by("group").items()}
            bands = ", ".join(f"{band} {got}/{of}" for band, (got, of) in of_bands.items())
            line += f" ({bands}; median {_median(own):.2f} mm, {_mean_seconds(own):.1f} CPU-s)"
        parts.append(line)
    return "; ".join(parts)


def trust_in_words(result: Record) -> str:
    """What medrl does not stand by."""
    own = measurements(result).select(method="medrl")
    parts = [
        "{} of {} {}".format(*flagged(own, right=right), name)
        for name, right in (("wrong", False), ("right", True))
    ]
    return f"flags {' and '.join(parts)} answers"


def points_in_words(result: Record) -> str:
    """Error of every method, rigid and affine."""
    errors = measurements(result).select(metric="error_mm").by("method")
    return "; ".join(
        f"{method} " + ", ".join(f"{row.case} {row.value:.2f} mm" for row in own.rows)
        for method, own in errors.items()
    )


def overlap_in_words(result: Record) -> str:
    """Mean Dice of every method."""
    dice = measurements(result).select(metric="dice").by("method")
    return "Dice: " + ", ".join(f"{name} {own.values.mean():.3f}" for name, own in dice.items())


CLAIMS: dict[str, Claims] = {
    "registration_template": {"Registration finds the pose of a template": poses_in_words},
    "registration_ixi-holdout": {
        "It finds the pose of whole heads it has not seen": poses_in_words
    },
    "registration_ms": {"It registers real sequences of a patient to each other": poses_in_words},
    "registration_lung": {"A lung at two dates": points_in_words},
    "registration_ixi-affine": {"Two subjects by an affine transform": overlap_in_words},
    f"registration_{ASTRAY}": {
        "Its confidence tells wrong registrations from right ones": trust_in_words
    },
}


def main() -> None:
    """Run the methods on the sets and print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    sets = [name for name in SETS if name != "ixi-val"]
    parser.add_argument("--cases", nargs="+", choices=tuple(SETS), default=sets)
    parser.add_argument("--method", nargs="+", choices=(*OWN, *PEERS), default=["medrl"])
    parser.add_argument("--model", default="rigid-head", help="name or folder")
    parser.add_argument("--band", nargs="+", help="only these bands")
    parser.add_argument("--limit", type=int, help="only so many cases of each set")
    parser.add_argument("--refresh", action="store_true", help="forget the methods' records first")
    parser.add_argument("--table", action="store_true", help="only print what is on file")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the result files")
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods: dict[str, Method] = {}
    for name in [] if options.table else options.method:
        if name in OWN:
            methods[name] = own_method(Registrar.load(options.model), refine=OWN[name])
        elif reason := PEERS[name].missing:
            print(f"{name} is left out: {reason}", flush=True)
        else:
            methods[name] = peer_method(PEERS[name])
    for name_of_set in options.cases:
        path = options.out / f"registration_{name_of_set}.json"
        planned = [
            # Methods of one call share the scans.
            PlannedPair(plan.name, plan.band, plan.contrast, cache(plan.make))
            for plan in SETS[name_of_set]()
            if not options.band or plan.band in options.band
        ][: options.limit]
        for name, method in methods.items():
            if name_of_set == ASTRAY and name not in OWN:
                continue
            if options.refresh and path.exists():
                result = read_json(path)
                result["methods"].pop(name, None)
                save(path, result)
            run(path, planned, name, method, about(name, options.model))
        print(f"\n{name_of_set}\n\n{table(read_json(path))}\n", flush=True)


if __name__ == "__main__":
    main()
