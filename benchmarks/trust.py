"""Whether models doubt what is unlike their training: each model on scans of every other kind.

A landmark is wrong if it is more than 10 mm off, or if the scan has no such thing; a registration
if its points are more than 2 mm off on average, or if the scans show different things; a mask if
its Dice is below 0.7, or if there is no such object. Trusted is a landmark with a confidence above
0.5, a registration that says so, and a mask that comes without a warning: with a confidence of 0.2
or more.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from evaluation import ixi, seeds
from evaluation.cohorts import CHANGED_HEADS, HEADS, UNLIKE_PAIRS, cohorts, hippocampi, posed
from evaluation.results import RESULTS, save
from monai.data.meta_tensor import MetaTensor

from medrl import LandmarkDetector, Registrar, load, read
from medrl.data.targets import read_mask
from medrl.errors import MedrlError
from medrl.evaluation import Table, plain
from medrl.seednet.data import dice
from medrl.seednet.seeds import Seed
from medrl.volume.space import apply_affine, voxel_to_world
from medrl.walker.segmenter import FOREGROUND

LANDMARK_MM, REGISTRATION_MM, RIGHT_DICE = 10.0, 2.0, 0.7
OWN = "its own holdout"
#: Wrong or not, trusted without the guard, trusted with it.
Answer = tuple[bool, bool, bool]
Answers = Iterator[tuple[str, list[Answer]]]
SEEDS = ("hippocampus-t1", "sarcoma-pet-ct")


def landmarks(model: str, most: int) -> Answers:
    """Landmarks of one model in every cohort."""
    detector = LandmarkDetector.load(model, alone=True)
    bare = LandmarkDetector(replace(detector.model, guard=None), manifest=detector.manifest)

    def found(scan: MetaTensor, truth: dict[str, np.ndarray]) -> list[Answer]:
        answers = []
        for before, now in zip(
            bare.detect(scan).landmarks, detector.detect(scan).landmarks, strict=True
        ):
            point = truth.get(now.name, np.full(3, np.inf))
            off = float(np.linalg.norm(now.position_world - point))
            if now.status != "absent" or before.status != "absent":
                answers.append((off > LANDMARK_MM, before.confidence > 0.5, now.confidence > 0.5))
        return answers

    for subject in ixi.subjects("holdout"):
        case = ixi.load(subject)
        yield OWN, found(case.scan(), case.points_world)
    for cohort, scans in cohorts(most=most).items():
        for name, scan in scans.items():
            truth: dict[str, np.ndarray] = {}
            if cohort in HEADS and name in ixi.subjects("holdout"):
                head = ixi.load(name)
                change = scan().affine.numpy() @ np.linalg.inv(head.scan().affine.numpy())
                truth = {n: apply_affine(change, p) for n, p in head.points_world.items()}
            elif cohort in HEADS:
                continue  # heads whose landmarks nobody knows
            yield cohort, _or_refused(lambda s=scan, t=truth: found(s(), t))


class _Remembering(Registrar):
    """A registrar that keeps what it said before its guard spoke."""

    trusted_before = False

    def _unfit(self, fixed: MetaTensor, moving: MetaTensor, answer: Any) -> tuple[str, ...]:
        confidence = self.model.settings.confidence
        assert confidence is not None
        sure = float(confidence(answer.features))
        self.trusted_before = sure >= confidence.threshold
        return super()._unfit(fixed, moving, answer)


def registrations(model: str, most: int) -> Answers:
    """Posed copies of scans of every cohort, and pairs of unlike things."""
    own = Registrar.load(model)
    registrar = _Remembering(own.model, manifest=own.manifest)
    rng = np.random.default_rng(0)

    def copy_of(scan: MetaTensor) -> list[Answer]:
        case = posed(scan, rng)
        found = registrar.register(scan, case.moving)
        wrong = case.error_mm(found.transform_world) > REGISTRATION_MM
        return [(wrong, registrar.trusted_before, found.trusted)]

    def unlike(one: MetaTensor, other: MetaTensor) -> list[Answer]:
        found = registrar.register(one, other)
        return [(True, registrar.trusted_before, found.trusted)]

    root = ixi.data_root() / "ixi_brain_t1" / "t1"
    for subject in ixi.subjects("holdout")[: 5 * most]:
        yield OWN, _or_refused(lambda s=subject: copy_of(read(root / f"{s}.nii.gz")))
    known = cohorts(most=most)
    for cohort, scans in known.items():
        if cohort in CHANGED_HEADS:
            continue  # a copy of a turned head is a turned copy of a head
        for scan in scans.values():
            yield cohort, _or_refused(lambda s=scan: copy_of(s()))
    for first, second in UNLIKE_PAIRS:
        pairs = zip(known[first].values(), known[second].values(), strict=False)
        for one, other in pairs:
            yield "unlike things", _or_refused(lambda a=one, b=other: unlike(a(), b()))


def masks(model: str, most: int) -> Answers:
    """A click in objects of the model's own kind, and in other things."""
    segmenter = load(model)
    rng = np.random.default_rng(0)
    channels = [channel.name for channel in segmenter.model.settings.channels]
    target = segmenter.model.settings.targets[0]

    def clicked(images: dict[str, MetaTensor], where: np.ndarray, truth: Any) -> list[Answer]:
        first = next(iter(images.values()))
        point = voxel_to_world(where[rng.integers(len(where))], first.affine)
        found = segmenter.segment(images, [Seed(point, FOREGROUND)])
        wrong = truth is None or dice(found.mask[0], truth) < RIGHT_DICE
        return [(wrong, True, found.confidence >= 0.2)]

    for case in seeds.cases(Path(model).name, "holdout"):
        images = {name: read(path) for name, path in case.images.items()}
        for shown in [list(images), *([[name] for name in images] if len(images) > 1 else [])]:
            some = {name: images[name] for name in shown}
            path = case.mask if "CT" not in channels else _mask_of(case.mask, shown[0])
            truth = read_mask(path, target)[0] > 0.5
            where = truth.nonzero().numpy()
            yield f"{OWN}, {' + '.join(shown)}", clicked(some, where, truth)
    if "MR" in channels:
        for scan, truth in hippocampi(2 * most):
            yield "hippocampi in whole heads", clicked({"MR": scan}, truth.nonzero().numpy(), truth)
    for cohort, scans in cohorts(most=most).items():
        if cohort == "hippocampus crops" and "MR" in channels:
            continue
        if cohort.startswith("limbs") and "CT" in channels:
            continue
        for scan in scans.values():
            image = scan()
            where = (image[0] > image.mean()).nonzero().numpy()
            for channel in channels:
                yield (
                    cohort,
                    _or_refused(lambda i=image, c=channel, w=where: clicked({c: i}, w, None)),
                )


def _mask_of(path: Path, channel: str) -> Path:
    """The contour that was drawn on an image of a sarcoma."""
    return path.parents[1] / f"{channel.lower()}_gtv" / path.name


def _or_refused(answer: Callable[[], list[Answer]]) -> list[Answer]:
    """No answers of a scan that is refused."""
    try:
        return answer()
    except MedrlError:
        return []


def counted(answers: Answers) -> dict[str, dict[str, int]]:
    """How many answers of each cohort were wrong, right, trusted and doubted."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))
    for cohort, several in answers:
        own = found[cohort]
        own["cases"] += 1
        for wrong, before, now in several:
            own["wrong" if wrong else "right"] += 1
            if wrong:
                own["wrong, trusted before"] += before
                own["wrong, trusted now"] += now
            else:
                own["right, doubted before"] += not before
                own["right, doubted now"] += not now
    return dict(found)


COLUMNS = (
    "cases",
    "wrong",
    "wrong, trusted before",
    "wrong, trusted now",
    "right",
    "right, doubted before",
    "right, doubted now",
)


def in_words(result: dict[str, Any]) -> str:
    """What each model trusts of other cohorts, and doubts of its own."""
    parts = []
    for model, by_cohort in result["models"].items():
        own = [row for name, row in by_cohort.items() if name.startswith(OWN)]
        others = [row for name, row in by_cohort.items() if not name.startswith(OWN)]

        def total(rows: list[dict[str, int]], column: str) -> int:
            return sum(row[column] for row in rows)

        parts.append(
            f"{model}: wrong and trusted elsewhere {total(others, 'wrong, trusted now')} of "
            f"{total(others, 'wrong')} (before: {total(others, 'wrong, trusted before')}), right "
            f"and doubted on its own holdout {total(own, 'right, doubted now')} of "
            f"{total(own, 'right')} (before: {total(own, 'right, doubted before')})"
        )
    return "; ".join(parts)


CLAIMS = {"Models doubt what is unlike their training": in_words}


def main() -> None:
    """Measure the models and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["brain-t1", *SEEDS, "rigid-head"])
    parser.add_argument("--folder", type=Path, help="where the models are, if not those shipped")
    parser.add_argument("--most", type=int, default=4, help="scans of each cohort")
    parser.add_argument("--pairs", type=int, default=1, help="the same for registration")
    parser.add_argument("--out", type=Path, default=RESULTS / "trust.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    measured: dict[str, Any] = {}
    for model in options.models:
        where = model if options.folder is None else str(options.folder / model)
        if model == "rigid-head":
            answers = registrations(where, options.pairs)
        elif model in SEEDS:
            answers = masks(where, options.most)
        else:
            answers = landmarks(where, options.most)
        measured[model] = counted(answers)
        rows = [[name, *row.values()] for name, row in measured[model].items()]
        print(Table(model, ["cohort", *COLUMNS], rows).markdown(), flush=True)
    if options.out.is_file() and len(options.models) < 4:
        import json

        measured = {**json.loads(options.out.read_text())["models"], **measured}
    result = {"scans_of_each_cohort": options.most, "models": measured}
    save(options.out, result, CLAIMS)
    print(in_words(plain(result)))


if __name__ == "__main__":
    main()
