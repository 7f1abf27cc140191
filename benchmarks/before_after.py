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
#: Largest difference of a landmark's confidence.
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


class Edition:
    """A process that answers with one edition of medrl."""

    def __init__(self, name: str, tree: Path) -> None:
        """Start it.

        Args:
            name: A module of :mod:`comparison`.
            tree: The checkout whose medrl it imports.
        """
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

    def ask(self, call: str, **arguments: Any) -> dict[str, Any]:
        """Call a function of the edition's module."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"call": call, **arguments}), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the edition {self.name!r} died in {call}, see above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


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


class Comparison:
    """Two editions that answer in turn."""

    def __init__(self, before: Edition, after: Edition, folder: Path) -> None:
        """Compare two editions; masks and posed scans go into the folder."""
        self.editions = (before, after)
        self.folder = folder

    def both(self, call: str, **arguments: Any) -> list[dict[str, Any]]:
        """What the earlier and the present edition answer."""
        return [edition.ask(call, **arguments) for edition in self.editions]

    def landmarks(self, root: Path, limit: int | None) -> dict[str, Any]:
        """Positions, statuses and confidences of brain-t1."""
        cases = []
        for name, scan in list(inputs.heads(root).items())[:limit]:
            before, after = self.both("detect", scan=str(scan))
            points = [np.array(answer["positions"]) for answer in (before, after)]
            sure = [np.array(answer["confidence"]) for answer in (before, after)]
            cases.append(
                {
                    "case": name,
                    "landmarks": len(points[0]),
                    "largest_mm": float(np.linalg.norm(points[1] - points[0], axis=1).max()),
                    "same_status": before["status"] == after["status"]
                    and before["names"] == after["names"],
                    "largest_confidence": float(np.nanmax(np.abs(sure[1] - sure[0]))),
                    "seconds": seconds(before, after),
                }
            )
        same = all(
            case["largest_mm"] <= TOLERANCE_MM
            and case["same_status"]
            and case["largest_confidence"] <= TOLERANCE_CONFIDENCE
            for case in cases
        )
        return {"same": same, "cases": cases, "speed": speed(cases)}

    def masks(self, root: Path, model: str, limit: int | None) -> dict[str, Any]:
        """Masks of a seed model, voxel for voxel, and the seeds that lead to them."""
        cases = []
        chosen = {k: v for k, v in inputs.segmentations(root).items() if v["model"] == model}
        for name, request in list(chosen.items())[:limit]:
            files = [self.folder / f"{edition.name}.npz" for edition in self.editions]
            before, after = (
                edition.ask("segment", **request, into=str(file))
                for edition, file in zip(self.editions, files, strict=True)
            )
            masks = [np.load(file)["mask"] > 0 for file in files]
            seeds = [np.array(answer["seeds"]).reshape(-1, 4) for answer in (before, after)]
            same = seeds[0].shape == seeds[1].shape
            cases.append(
                {
                    "case": name,
                    "voxels": int(masks[0].sum()),
                    "different_voxels": int((masks[0] != masks[1]).sum()),
                    "seeds": len(seeds[0]),
                    "same_seeds": bool(same and np.allclose(seeds[0], seeds[1], atol=TOLERANCE_MM)),
                    "seconds": seconds(before, after),
                }
            )
        equal = all(not case["different_voxels"] and case["same_seeds"] for case in cases)
        return {"same": equal, "cases": cases, "speed": speed(cases)}

    def transforms(self, root: Path, limit: int | None) -> dict[str, Any]:
        """Transforms of rigid-head; its confidence is fitted anew and only shown."""
        cases = []
        for name, request in list(inputs.pairs(root, self.folder).items())[:limit]:
            before, after = self.both("register", **request)
            points = inputs.spread_points(Path(request["fixed"]))
            moved = [
                nib.affines.apply_affine(np.array(answer["transform"]), points)
                for answer in (before, after)
            ]
            cases.append(
                {
                    "case": name,
                    "largest_mm": float(np.linalg.norm(moved[1] - moved[0], axis=1).max()),
                    "confidence": [before["confidence"], after["confidence"]],
                    "seconds": seconds(before, after),
                }
            )
        same = all(case["largest_mm"] <= TOLERANCE_MM for case in cases)
        return {"same": same, "cases": cases, "speed": speed(cases)}

    def learners(self, root: Path, rounds: int) -> dict[str, Any]:
        """Seconds of a training step; the first rounds, in which things are made, do not count."""
        data = inputs.learning(root)
        found = {}
        for name, steps in LEARNERS.items():
            times = []
            for number in range(rounds + 2):
                order = self.editions if number % 2 else self.editions[::-1]
                told = {
                    edition.name: edition.ask("train", learner=name, steps=steps, data=data)
                    for edition in order
                }
                times.append([told[e.name]["cpu_seconds"] / steps for e in self.editions])
            found[name] = speed([{"seconds": pair} for pair in times[2:]])
        return found


def seconds(before: dict[str, Any], after: dict[str, Any]) -> list[float]:
    """CPU seconds of two answers."""
    return [before["cpu_seconds"], after["cpu_seconds"]]


def speed(cases: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of the seconds before and after, and their ratio.

    The first of many cases, in which models are loaded, is left out.
    """
    times = np.array([case["seconds"] for case in cases])
    before, after = np.median(times[1:] if len(times) > 1 else times, axis=0)
    return {"before": float(before), "after": float(after), "ratio": float(after / before)}


def answers_in_words(result: dict[str, Any]) -> str:
    """How many answers of each model are what they were."""
    return "; ".join(
        f"{name} {'all' if found['same'] else 'NOT all'} of {len(found['cases'])} cases"
        for name, found in result["systems"].items()
    )


def speed_in_words(result: dict[str, Any]) -> str:
    """Time after as a share of the time before."""
    told = {name: found["speed"]["ratio"] for name, found in result["systems"].items()}
    told |= {f"step of {n}": found["ratio"] for n, found in result["training_steps"].items()}
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in told.items())


CLAIMS = {
    "One engine under every system changed no answer": answers_in_words,
    "It is no slower (time after over time before)": speed_in_words,
}


def main() -> None:
    """Compare and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", default=BEFORE, help="the commit to compare with")
    parser.add_argument("--limit", type=int, help="cases of each system; all if left out")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds of training steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "before_after.json")
    options = parser.parse_args()
    root, limit = data_root().resolve(), options.limit
    os.environ["MEDRL_DATA"] = str(root)
    with checkout(options.before) as tree, tempfile.TemporaryDirectory() as folder:
        before, after = Edition("before", tree), Edition("after", _REPOSITORY)
        comparison = Comparison(before, after, Path(folder))
        systems = {
            "brain-t1": comparison.landmarks(root, limit),
            "hippocampus-t1": comparison.masks(root, "hippocampus-t1", limit),
            "sarcoma-pet-ct": comparison.masks(root, "sarcoma-pet-ct", limit),
            "rigid-head": comparison.transforms(root, limit),
        }
        steps = comparison.learners(root, options.rounds)
        before.close()
        after.close()
    result = {
        "before": options.before,
        "tolerance_mm": TOLERANCE_MM,
        "systems": systems,
        "training_steps": steps,
    }
    save(options.out, result, CLAIMS)
    rows: list[list[object]] = [
        [name, len(found["cases"]), "yes" if found["same"] else "NO", *found["speed"].values()]
        for name, found in systems.items()
    ]
    rows += [[f"a step of {name}", "", "", *found.values()] for name, found in steps.items()]
    print_table(["", "cases", "same", "before, s", "after, s", "ratio"], rows)
    if not all(found["same"] for found in systems.values()):
        raise SystemExit("not everything is as it was, see above")


if __name__ == "__main__":
    main()
