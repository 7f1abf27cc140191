"""How often registration finds the pose, next to SimpleITK, elastix, ANTs and greedy.

Every answer is written to the result file as soon as it is known; what is there is not run again.
Success: the mean error over the case's points is below 2 mm.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import argparse
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation.registration_cases import SETS, SUCCESS_MM, Planned, RegistrationCase
from evaluation.registration_peers import PEERS, Peer, cpu_seconds
from evaluation.results import RESULTS, Claims, save
from monai.data.meta_tensor import MetaTensor

from medrl.bundles import find
from medrl.errors import MedrlError
from medrl.evaluation import Table, read_json, versions

#: Methods that are medrl's, and whether they refine.
OWN = {"medrl": True, "medrl-agent": False}

Record = dict[str, Any]
Method = Callable[[RegistrationCase], Record]


def own_method(model: str, *, refine: bool) -> Method:
    """The model of medrl; records say how sure it was, and what the agent alone reached."""
    from medrl.registration.register import Registrar

    registrar = Registrar.load(model)

    def run(case: RegistrationCase) -> Record:
        started = cpu_seconds()
        try:
            answer = registrar.register(case.fixed, case.moving, transform=case.kind, refine=refine)
        except MedrlError as error:
            return {"failure": str(error), "cpu_s": cpu_seconds() - started, "trusted": False}
        seconds = cpu_seconds() - started
        alone = case.measure(answer.agent_transform_world)
        return {
            **case.measure(answer.transform_world),
            **{f"agent_{name}": value for name, value in alone.items()},
            "cpu_s": seconds,
            "confidence": answer.confidence,
            "predicted_error_mm": answer.predicted_error_mm,
            "trusted": answer.trusted,
        }

    return run


def peer_method(peer: Peer) -> Method:
    """A peer; an exception of its own is an answer that failed."""
    # The first call loads the package: not on a case, where time is taken.
    noise = torch.randn(1, 24, 24, 24, generator=torch.Generator().manual_seed(0))
    scan = MetaTensor(noise, affine=torch.diag(torch.tensor([4.0, 4.0, 4.0, 1.0]).double()))
    with suppress(Exception):
        peer.run(scan, scan, "rigid")

    def run(case: RegistrationCase) -> Record:
        started = cpu_seconds()
        try:
            transform = peer.run(case.fixed, case.moving, case.kind)
        except Exception as error:  # whatever the package raises
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return {"failure": lines[-1][-160:], "cpu_s": cpu_seconds() - started}
        return {**case.measure(transform), "cpu_s": cpu_seconds() - started}

    return run


def about(name: str, model: str) -> Record:
    """What a method's records depend on; records of another model are not kept."""
    if name in OWN:
        manifest = json.loads((find(model) / "model.json").read_text(encoding="utf-8"))
        return {"model": manifest["name"], "weights_sha256": manifest["weights"]["sha256"]}
    peer = PEERS[name]
    versions = {} if peer.package is None else {peer.package: version(peer.package)}
    return {"settings": peer.settings, **versions}


def run(
    path: Path, planned: Sequence[Planned], name: str, method: Method, identity: Record
) -> None:
    """Register every case that the file has no record of."""
    result = read_json(path)
    entry = result.setdefault("methods", {}).setdefault(name, {})
    if any(entry.get(key) != value for key, value in identity.items()):
        entry.clear()
    entry.update({**identity, "environment": versions()})
    records = entry.setdefault("cases", {})
    for number, plan in enumerate(planned):
        if plan.name in records:
            continue
        record = {"band": plan.band, "contrast": plan.contrast, **method(plan.make())}
        records[plan.name] = record
        entry["summary"] = summary(list(records.values()))
        save(path, result, CLAIMS.get(path.stem))
        print(f"{name} {number + 1}/{len(planned)} {plan.name}: {record}", flush=True)


def summary(records: Sequence[Record]) -> Record:
    """Figures of a method.

    Args:
        records: With ``error_mm`` (missing: it failed) or ``dice``, and ``cpu_s``.

    Returns:
        Successes and cases by band and contrast, errors, CPU seconds, and of methods with a
        confidence the shares of failures and of successes that it flags, in percent.
    """
    figures: Record = {
        "cases": len(records),
        "cpu_s_mean": float(np.mean([record["cpu_s"] for record in records])),
    }
    if all("dice" in record for record in records):
        for key in ("dice", "agent_dice"):
            values = [record[key] for record in records if key in record]
            if values:
                figures[f"{key}_mean"] = float(np.mean(values))
                figures[f"{key}_worst"] = float(np.min(values))
        return figures
    right = [is_right(record) for record in records]
    figures["successes"] = sum(right)
    groups: dict[str, dict[str, list[int]]] = {}
    for record, success in zip(records, right, strict=True):
        count = groups.setdefault(record["band"], {}).setdefault(record["contrast"], [0, 0])
        count[0] += success
        count[1] += 1
    figures["successes_of"] = groups
    figures["median_mm"] = _median(records, "error_mm")
    successes = [record for record, success in zip(records, right, strict=True) if success]
    figures["median_of_successes_mm"] = _median(successes, "error_mm")
    if any("trusted" in record for record in records):
        figures["agent_median_of_successes_mm"] = _median(successes, "agent_error_mm")
        figures["agent_successes"] = sum(is_right(record, "agent_error_mm") for record in records)
        flagged = [not record["trusted"] for record in records]
        for name, wanted in (("failures", False), ("successes", True)):
            chosen = [
                flag for flag, success in zip(flagged, right, strict=True) if success == wanted
            ]
            figures[f"{name}_flagged"] = [sum(chosen), len(chosen)]
    return figures


def is_right(record: Record, key: str = "error_mm") -> bool:
    """Tell whether a record is a success."""
    error = record.get(key)
    return error is not None and error < SUCCESS_MM


def _median(records: Sequence[Record], key: str) -> float | None:
    errors = [record[key] for record in records if record.get(key) is not None]
    return float(np.median(errors)) if errors else None


def table(result: dict[str, Any]) -> str:
    """All methods of a result file, a row each, in Markdown."""
    entries = [(n, e["summary"]) for n, e in result.get("methods", {}).items() if "summary" in e]
    if any("dice_mean" in figures for _, figures in entries):
        header = ["method", "cases", "mean Dice", "worst", "CPU-s"]
        keys = ("cases", "dice_mean", "dice_worst", "cpu_s_mean")
        return Table("", header, [[n, *(f.get(k) for k in keys)] for n, f in entries]).markdown()
    bands = list(dict.fromkeys(b for _, f in entries for b in f["successes_of"]))
    header = ["method", *bands, "all", "median mm (successes)", "median mm (all)", "CPU-s"]
    header += ["agent alone: right, median mm", "flagged: failures, successes"]
    rows: list[list[object]] = []
    for name, figures in entries:
        row: list[object] = [name]
        for band in bands:
            counts = figures["successes_of"].get(band, {})
            row.append(" ".join(f"{got}/{of}" for got, of in counts.values()))
        row.append(f"{figures['successes']}/{figures['cases']}")
        row += [figures["median_of_successes_mm"], figures["median_mm"], figures["cpu_s_mean"]]
        if "agent_successes" in figures:
            median = figures["agent_median_of_successes_mm"]
            alone = f"{figures['agent_successes']}"
            row.append(alone if median is None else f"{alone}, {median:.2f}")
            parts = (figures["failures_flagged"], figures["successes_flagged"])
            row.append(", ".join(f"{got}/{of}" for got, of in parts))
        else:
            row += ["", ""]
        rows.append(row)
    return Table("", header, rows).markdown()


def in_words(result: dict[str, Any]) -> str:
    """Successes of every method, and for medrl the error, the time and the flags."""
    methods = {name: entry["summary"] for name, entry in result["methods"].items()}
    own = methods.pop("medrl", None)
    parts = []
    if own:
        totals = {
            band: [sum(count) for count in zip(*counts.values(), strict=True)]
            for band, counts in own["successes_of"].items()
        }
        bands = ", ".join(f"{band} {got}/{of}" for band, (got, of) in totals.items())
        flags = " and ".join(
            f"{own[f'{name}_flagged'][0]} of {own[f'{name}_flagged'][1]} {name}"
            for name in ("failures", "successes")
        )
        parts.append(
            f"medrl {own['successes']}/{own['cases']} ({bands}; median "
            f"{own['median_of_successes_mm']:.2f} mm, {own['cpu_s_mean']:.1f} CPU-s; flags {flags})"
        )
    parts += [f"{n} {f['successes']}/{f['cases']}" for n, f in methods.items()]
    return "; ".join(parts)


def points_in_words(result: dict[str, Any]) -> str:
    """Median error of every method, rigid and affine."""
    return "; ".join(
        f"{name} "
        + ", ".join(
            f"{kind} {case['error_mm']:.2f} mm" if "error_mm" in case else f"{kind} failed"
            for kind, case in entry["cases"].items()
        )
        for name, entry in result["methods"].items()
    )


def overlap_in_words(result: dict[str, Any]) -> str:
    """Mean Dice of every method."""
    return "Dice: " + ", ".join(
        f"{name} {entry['summary']['dice_mean']:.3f}"
        for name, entry in result["methods"].items()
        if "dice_mean" in entry.get("summary", {})
    )


CLAIMS: dict[str, Claims] = {
    "registration_template": {"Registration finds the pose of a template": in_words},
    "registration_ixi-holdout": {"It finds the pose of whole heads it has not seen": in_words},
    "registration_ms": {"It registers real sequences of a patient to each other": in_words},
    "registration_lung": {"A lung at two dates": points_in_words},
    "registration_ixi-affine": {"Two subjects by an affine transform": overlap_in_words},
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
            try:
                methods[name] = own_method(options.model, refine=OWN[name])
            except (ImportError, MedrlError) as error:
                print(f"{name} is left out: {error}", flush=True)
        elif reason := PEERS[name].missing:
            print(f"{name} is left out: {reason}", flush=True)
        else:
            methods[name] = peer_method(PEERS[name])
    for name_of_set in options.cases:
        path = options.out / f"registration_{name_of_set}.json"
        planned = [
            # Methods of one call share the scans.
            Planned(plan.name, plan.band, plan.contrast, cache(plan.make))
            for plan in SETS[name_of_set]()
            if not options.band or plan.band in options.band
        ][: options.limit]
        for name, method in methods.items():
            if options.refresh and path.exists():
                result = read_json(path)
                result["methods"].pop(name, None)
                save(path, result)
            run(path, planned, name, method, about(name, options.model))
        print(f"\n{name_of_set}\n\n{table(read_json(path))}\n", flush=True)


if __name__ == "__main__":
    main()
