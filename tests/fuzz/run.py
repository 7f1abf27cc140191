"""Fuzzes everything that medrl reads: `python tests/fuzz/run.py --count 10000 --seed 0`.

Every input is a whole one that has been damaged, and is read in a forked process. What counts
as a finding: an exception other than MedrlError, a traceback or an odd exit code of the command, a
crash, more than 10 s, memory above four times the input and a fixed slack, files opened or made
outside of the input's and the output folder, code or pickles loaded. Ends with code 1 if there are
any; `--keep` has them written as JSON, to be put into the corpus when they have been mended.
"""

from __future__ import annotations

import os

# A forked process has no other threads; none may be waited for.
os.environ.update(
    OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1", MKL_NUM_THREADS="1", CUDA_VISIBLE_DEVICES=""
)

import argparse
import base64
import json
import random
import re
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from child import Outcome, Workplace, lay_out
from inputs import Files, Link, Seed, make_seeds
from mutate import Mutated, mutate
from targets import through_command_line

#: Whole inputs that the first reader of their kind does not take.
_REFUSED = ("curves.mrk.json",)
CORPUS = Path(__file__).parent / "corpus"
_SCRATCH = "medrl-fuzz-"


@dataclass(frozen=True)
class Trial:
    """An input, and how reading it ended."""

    name: str
    kind: str
    files: Files
    path: str
    steps: tuple[str, ...]
    outcome: Outcome


def main(argv: Sequence[str] | None = None) -> int:
    """Run the fuzzer; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=0, help="damaged inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--kinds", nargs="*", help="kinds of inputs, such as scan; all if left out")
    parser.add_argument("--whole", action="store_true", help="read whole inputs")
    parser.add_argument("--corpus", action="store_true", help="read what was found before")
    parser.add_argument("--keep", type=Path, help="folder for findings")
    parser.add_argument("--json", type=Path, help="file for the numbers of the run")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    seeds = make_seeds()
    if options.kinds:
        seeds = [seed for seed in seeds if seed.kind in options.kinds]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=_SCRATCH) as folder:
        model = _model(Path(folder) / "model", make_seeds())
        workplace = Workplace(Path(folder) / "work", model)
        _warm_up(workplace, seeds)
        numbers = range(options.first, options.first + options.count)
        trials = chain(
            _whole(workplace, seeds) if options.whole else (),
            _corpus(workplace, seeds) if options.corpus else (),
            _damaged(workplace, seeds, options.seed, numbers),
        )
        findings, report = _follow(trials, options.keep)
        workplace.close()
    report["seed"], report["minutes"] = options.seed, round((time.monotonic() - started) / 60, 1)
    print(json.dumps(report, indent=1))
    if options.json:
        options.json.write_text(json.dumps({**report, "findings": findings}, indent=1))
    return int(bool(findings))


def _model(folder: Path, seeds: Sequence[Seed]) -> Path:
    """A small model for `medrl detect`."""
    seed = next(seed for seed in seeds if (seed.kind, seed.name) == ("bundle", "landmark"))
    lay_out(seed.files, folder)
    return folder / "model"


def _warm_up(workplace: Workplace, seeds: Sequence[Seed]) -> None:
    """Read every kind here, so that all that is imported late is imported before the first fork."""
    from targets import run

    seen: set[tuple[str, str]] = set()
    for seed in seeds:
        if (key := (seed.kind, Path(seed.path).suffix)) in seen:
            continue
        seen.add(key)
        for command_line in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                lay_out(seed.files, Path(folder) / "in")
                out = Path(folder) / "out"
                out.mkdir()
                run(seed.kind, Path(folder) / "in" / seed.path, out, command_line, workplace.model)


def _whole(workplace: Workplace, seeds: Sequence[Seed]) -> Iterator[Trial]:
    for seed in seeds:
        for line in (False, True):
            outcome = workplace.run(seed.kind, seed.files, seed.path, seed.size, command_line=line)
            if not line and outcome.what == "refused" and seed.name not in _REFUSED:
                outcome = replace(outcome, what="is whole, and refused", finding=True)
            yield Trial(f"whole {seed.name}", seed.kind, seed.files, seed.path, (), outcome)


def _damaged(
    workplace: Workplace, seeds: Sequence[Seed], number: int, numbers: Sequence[int]
) -> Iterator[Trial]:
    for n in numbers:
        rng = random.Random(f"{number}-{n}")
        made: Mutated = mutate(seeds, rng)
        line = through_command_line(made.seed.kind, rng)
        outcome = workplace.run(made.seed.kind, made.files, made.path, made.size, command_line=line)
        name = f"{number}-{n} {made.seed.name}{' (command)' if line else ''}"
        yield Trial(name, made.seed.kind, made.files, made.path, made.steps, outcome)


def _corpus(workplace: Workplace, seeds: Sequence[Seed]) -> Iterator[Trial]:
    for file in sorted(CORPUS.glob("*.json")):
        kind, path, files, size = unpack(json.loads(file.read_text()), seeds)
        for line in (False, True):
            outcome = workplace.run(kind, files, path, size, command_line=line)
            yield Trial(f"corpus {file.stem}", kind, files, path, (), outcome)


def _follow(trials: Iterable[Trial], keep: Path | None) -> tuple[list[dict], dict]:
    """Count, and tell of findings as they come."""
    outcomes: dict[str, Counter] = {}
    findings, slowest, most = [], 0.0, 0
    loud: Counter = Counter()
    for number, trial in enumerate(trials, 1):
        outcome = trial.outcome
        word = "found" if outcome.finding else outcome.what
        outcomes.setdefault(trial.kind, Counter())[word] += 1
        slowest, most = max(slowest, outcome.seconds), max(most, outcome.excess)
        if outcome.said and not outcome.finding:
            loud[f"{trial.path.rpartition('.')[2]}: {outcome.said[-80:]}"] += 1
        if outcome.finding:
            findings.append(
                {"name": trial.name, "kind": trial.kind, "steps": trial.steps, **asdict(outcome)}
            )
            print(f"{trial.name} [{'; '.join(trial.steps)}]: {outcome.what}", file=sys.stderr)
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                stem = trial.name.replace(" ", "_").replace("/", "-")
                (keep / f"{stem}.json").write_text(json.dumps(pack(trial), indent=1))
        if number % 1000 == 0:
            print(f"{number} read, {len(findings)} findings", file=sys.stderr)
    total = sum(sum(counts.values()) for counts in outcomes.values())
    report = {
        "inputs": total,
        "findings": len(findings),
        "outcomes": {
            kind: dict(sorted(counts.items())) for kind, counts in sorted(outcomes.items())
        },
        "slowest_s": round(slowest, 2),
        "most_memory_mib": round(most / 2**20, 1),
        "loud": dict(loud.most_common(8)),
    }
    return findings, report


def pack(trial: Trial) -> dict:
    """An input as JSON; the weights of models that ship are not copied."""
    files = {}
    for name, content in trial.files.items():
        if isinstance(content, Link):
            files[name] = {"link": content.target}
        elif len(content) > 2**20 and name.endswith(".safetensors"):
            files[name] = {"of": trial.name.split()[1]}
        else:
            files[name] = base64.b64encode(zlib.compress(content, 9)).decode()
    # Where the folder lay tells nothing of the input.
    found = re.sub(rf"/[^\s']*/{_SCRATCH}[^/]+/work/", "", trial.outcome.what)
    return {"found": found, "kind": trial.kind, "path": trial.path, "files": files}


def unpack(content: dict, seeds: Sequence[Seed]) -> tuple[str, str, Files, int]:
    """Kind, path, files and size of an input."""
    files: Files = {}
    for name, value in content["files"].items():
        if isinstance(value, str):
            files[name] = zlib.decompress(base64.b64decode(value))
        elif "link" in value:
            files[name] = Link(value["link"])
        else:
            files[name] = next(s for s in seeds if s.name == value["of"]).files[name]
    size = sum(len(data) for data in files.values() if isinstance(data, bytes))
    return content["kind"], content["path"], files, size


if __name__ == "__main__":
    sys.exit(main())
