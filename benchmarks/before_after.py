"""Nothing was lost: today's answers and speed next to those of the code before the shared engine.

The earlier commit is checked out beside this tree, and both answer in turn in processes of their
own: landmarks, masks and transforms of the holdout subjects, then steps of every learner. Seconds
are CPU seconds of one thread.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")
os.environ.setdefault("ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS", "1")

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from comparison import inputs
from evaluation.ixi import data_root
from evaluation.results import RESULTS, print_table, save

#: The last commit at which every system had a decision process of its own.
BEFORE = "71f8bd8"
#: Largest difference of a landmark, or of a point that a transform carries, mm.
TOLERANCE_MM = 1e-3
#: Largest difference of a landmark's confidence; that of registrations is fitted anew.
TOLERANCE_CONFIDENCE = 1e-3
#: Learners, and steps of each in a round.
LEARNERS = {
    "landmark imitation": 8,
    "landmark DQN": 4,
    "seednet perception": 2,
    "seednet agent": 8,
    "registration imitation": 4,
    "registration actor-critic": 2,
}
ROUNDS = 9

_REPOSITORY = Path(__file__).resolve().parents[1]

Answer = dict[str, Any]


class Edition:
    """A process that answers with one edition of medrl.

    Args:
        name: A module of :mod:`comparison`.
        tree: The checkout whose medrl it imports.
    """

    def __init__(self, name: str, tree: Path) -> None:
        self.name = name
        worker = Path(__file__).parent / "comparison" / "worker.py"
        roots = os.pathsep.join(str(tree / part) for part in (".", "datasets"))
        self._process = subprocess.Popen(
            [sys.executable, str(worker), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=tree,
            env={**os.environ, "PYTHONPATH": roots},
        )

    def ask(self, call: str, **arguments: Any) -> Answer:
        """Call a function of the edition's module."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"call": call, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the edition {self.name!r} died in {call}, see above")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """A commit of this repository in a temporary folder."""
    with tempfile.TemporaryDirectory() as parent:
        tree = Path(parent) / "before"
        git = ["git", "-C", str(_REPOSITORY), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def landmarks(before: Answer, after: Answer) -> Answer:
    """Positions, statuses and confidences."""
    points, sure = (
        [np.array(answer[key]) for answer in (before, after)] for key in ("positions", "confidence")
    )
    told = all(before[key] == after[key] for key in ("names", "status"))
    moved = float(np.linalg.norm(points[1] - points[0], axis=1).max())
    doubt = float(np.nanmax(np.abs(sure[1] - sure[0])))
    return {
        "largest_mm": moved,
        "same_status": told,
        "largest_confidence": doubt,
        "same": told and moved <= TOLERANCE_MM and doubt <= TOLERANCE_CONFIDENCE,
    }


def masks(before: Answer, after: Answer) -> Answer:
    """Voxel for voxel, and the seeds that led to them."""
    one, other = (np.load(answer["mask"])["mask"] > 0 for answer in (before, after))
    seeds = [np.array(answer["seeds"]).reshape(-1, 4) for answer in (before, after)]
    placed = seeds[0].shape == seeds[1].shape and np.allclose(*seeds, rtol=0, atol=TOLERANCE_MM)
    different = int((one != other).sum())
    return {
        "voxels": int(one.sum()),
        "different_voxels": different,
        "seeds": len(seeds[0]),
        "same": bool(placed) and not different,
    }


def transforms(before: Answer, after: Answer) -> Answer:
    """Over points spread over the fixed scan."""
    points = inputs.spread_points(Path(before["fixed"]))
    moved = [
        nib.affines.apply_affine(np.array(answer["transform"]), points)
        for answer in (before, after)
    ]
    largest = float(np.linalg.norm(moved[1] - moved[0], axis=1).max())
    sure = [before["confidence"], after["confidence"]]
    return {"largest_mm": largest, "confidence": sure, "same": largest <= TOLERANCE_MM}


def compare_models(
    editions: tuple[Edition, Edition], root: Path, folder: Path, limit: int | None
) -> dict[str, Answer]:
    """Ask both editions of every holdout case, in turn."""
    cases = {name: {"scan": str(scan)} for name, scan in inputs.heads(root).items()}
    segmented = inputs.segmentations(root)
    pairs = inputs.pairs(root, folder)
    found: dict[str, Answer] = {}
    for model, call, requests, same in (
        ("brain-t1", "detect", cases, landmarks),
        ("hippocampus-t1", "segment", _of(segmented, "hippocampus-t1"), masks),
        ("sarcoma-pet-ct", "segment", _of(segmented, "sarcoma-pet-ct"), masks),
        ("rigid-head", "register", pairs, transforms),
    ):
        rows = []
        for name, request in islice(requests.items(), limit):
            answers = []
            for edition in editions:
                mask = {"into": str(folder / f"{edition.name}.npz")} if call == "segment" else {}
                answers.append({**request, **edition.ask(call, **request, **mask)})
            rows.append({"case": name, **same(*answers), "seconds": _seconds(answers)})
            print(model, rows[-1], flush=True)
        found[model] = {"same": all(row["same"] for row in rows), "cases": rows, **_speed(rows)}
    return found


def compare_learners(editions: tuple[Edition, Edition], root: Path, rounds: int) -> Answer:
    """Seconds of a step; the first two rounds, in which things are made, do not count."""
    data = inputs.learning(root)
    found = {}
    for name, steps in LEARNERS.items():
        rows = []
        for number in range(rounds + 2):
            order = editions if number % 2 else editions[::-1]
            told = {e: e.ask("train", name=name, steps=steps, data=data) for e in order}
            rows.append({"seconds": [s / steps for s in _seconds([told[e] for e in editions])]})
        found[name] = _speed(rows[1:])
        print(name, found[name], flush=True)
    return found


def _of(requests: dict[str, Answer], model: str) -> dict[str, Answer]:
    return {name: request for name, request in requests.items() if request["model"] == model}


def _seconds(answers: list[Answer]) -> list[float]:
    return [answer["cpu_seconds"] for answer in answers]


def _speed(rows: list[Answer]) -> dict[str, float]:
    """Medians of the seconds before and after, and their ratio; without the first, which loads."""
    times = np.array([row["seconds"] for row in rows])
    before, after = np.median(times[1:] if len(times) > 1 else times, axis=0)
    return {"before_s": float(before), "after_s": float(after), "ratio": float(after / before)}


def answers_in_words(result: Answer) -> str:
    """How many answers of each model are what they were."""
    return "; ".join(
        f"{name} {sum(case['same'] for case in found['cases'])} of {len(found['cases'])} cases"
        for name, found in result["models"].items()
    )


def speed_in_words(result: Answer) -> str:
    """Time after as a share of the time before."""
    told = {**result["models"], **{f"step of {n}": f for n, f in result["learners"].items()}}
    return ", ".join(f"{name} {found['ratio']:.2f}" for name, found in told.items())


CLAIMS = {
    "One engine under every system changed no answer": answers_in_words,
    "It is no slower (time after over time before)": speed_in_words,
}


def main() -> None:
    """Compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    parser.add_argument("--limit", type=int, help="cases of each model; all if left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of training steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "before_after.json")
    options = parser.parse_args()
    root = data_root().resolve()
    with checkout(options.before) as tree, tempfile.TemporaryDirectory() as folder:
        editions = (Edition("before", tree), Edition("after", _REPOSITORY))
        models = compare_models(editions, root, Path(folder), options.limit)
        learners = compare_learners(editions, root, options.rounds)
        for edition in editions:
            edition.close()
    result = {
        "before": options.before,
        "tolerance_mm": TOLERANCE_MM,
        "models": models,
        "learners": learners,
    }
    save(options.out, result, CLAIMS)
    columns = ("before_s", "after_s", "ratio")
    rows: list[list[object]] = [
        [name, len(f["cases"]), "yes" if f["same"] else "NO", *(f[c] for c in columns)]
        for name, f in models.items()
    ]
    rows += [[f"a step of {n}", "", "", *(f[c] for c in columns)] for n, f in learners.items()]
    print_table(["", "cases", "same", *columns], rows)
    if not all(found["same"] for found in models.values()):
        raise SystemExit("not everything is as it was, see above")


if __name__ == "__main__":
    main()
