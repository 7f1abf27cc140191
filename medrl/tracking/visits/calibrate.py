"""Choose settings and fit the confidence on pairs of which the truth is known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray

from medrl.evaluation import LogisticRegression
from medrl.tracking.visits.dynamics import Pair
from medrl.tracking.visits.model import VisitSettings
from medrl.tracking.visits.policy import Coupling, JointDescent
from medrl.tracking.visits.start import tidy
from medrl.tracking.visits.support import support_points
from medrl.tracking.visits.synthesis import bent, random_bend, replaced, reshown
from medrl.tracking.visits.walk import Walked, features, walk, walk_back
from medrl.volume.pyramid import build_pyramid
from medrl.volume.space import apply_affine, as_affine, depth_inside, voxel_to_world

Array = NDArray[np.float64]

#: A point further from the truth than this is wrong, mm.
WRONG_MM = 5.0


@dataclass(frozen=True, eq=False)
class Case:
    """A pair with points that are known in both scans.

    Attributes:
        pair: The scans, and a start that is some mm off.
        points_world: (N, 3) RAS mm in the earlier scan.
        truth_world: (N, 3) in the later one.
        asked: How many of them, from the first, a person might have marked.
    """

    pair: Pair
    points_world: Array
    truth_world: Array
    asked: int

    @property
    def displacement(self) -> Array:
        """The true displacement (N, 3) in mm."""
        back = apply_affine(np.linalg.inv(self.pair.start_world), self.truth_world)
        return back - self.points_world


def make_case(
    scan: MetaTensor, settings: VisitSettings, *, generator: np.random.Generator, asked: int = 60
) -> Case:
    """Bend a scan and show it in another way; half of the points lie on structure, half anywhere.

    Args:
        scan: MetaTensor (1, I, J, K) of a training split.
        settings: Of the agents.
        generator: Source of all choices.
        asked: Points besides the support.
    """
    own = tidy(scan)
    bend = random_bend(own, generator=generator, largest_mm=generator.uniform(5.0, 15.0))
    later = reshown(bent(own, bend), generator=generator)
    if generator.random() < 0.5:
        later = replaced(later, generator=generator)
    pyramids = [build_pyramid(one, spacings=settings.spacings) for one in (own, later)]
    level = min(1, len(settings.spacings) - 1)
    marks = _marks(own, generator, asked // 2)
    strong = support_points(pyramids[0], marks, count=300, reach_mm=1e3, level=level)
    order = generator.permutation(len(strong))
    points = np.concatenate([marks, strong[order]])
    truth = bend.forward(points)
    start = np.eye(4)
    start[:3, 3] = generator.normal(0.0, 3.0, 3)
    seen = depth_inside(truth, as_affine(own.affine), tuple(own.shape[1:])) > 3.0
    kept = np.flatnonzero(seen)
    first = int((kept < 2 * len(marks)).sum())
    pair = Pair(pyramids[0], pyramids[1], start)
    return Case(pair, points[kept], truth[kept], first)


def measure(case: Case, settings: VisitSettings, coupling: Coupling) -> tuple[Walked, Array]:
    """Walk; the error (N,) mm of every point."""
    walked = walk(
        case.pair,
        case.points_world,
        view=settings.view,
        policy=JointDescent(coupling),
        neighbours=settings.neighbours,
    )
    return walked, np.asarray(np.linalg.norm(walked.later_world - case.truth_world, axis=1))


def fit_confidence(
    cases: Iterable[Case], settings: VisitSettings, *, report: Callable[[str], None] = print
) -> LogisticRegression:
    """Fit the probability of an error below 5 mm.

    Args:
        cases: Of training scans.
        settings: Of the agents.
        report: Told of every case.
    """
    seen, right = [], []
    policy = JointDescent(settings.coupling)
    for number, case in enumerate(cases):
        walked, error = measure(case, settings, settings.coupling)
        back = walk_back(
            case.pair, walked, view=settings.view, policy=policy, neighbours=settings.neighbours
        )
        seen.append(features(walked, back)[: case.asked])
        right.append(error[: case.asked] < WRONG_MM)
        report(
            f"{number}: mean {error[: case.asked].mean():.2f} mm, "
            f"wrong {(~right[-1]).mean():.3f} of {case.asked}"
        )
    return LogisticRegression.fit(np.concatenate(seen), np.concatenate(right))


def choose_coupling(
    cases: Sequence[Case], settings: VisitSettings, options: Sequence[Coupling]
) -> dict[Coupling, float]:
    """Mean error in mm (at most 10 a point) of each coupling."""
    found = {}
    for coupling in options:
        errors = [measure(case, settings, coupling)[1][: case.asked] for case in cases]
        found[coupling] = float(np.concatenate(errors).clip(max=10.0).mean())
    return found


def _marks(scan: MetaTensor, generator: np.random.Generator, count: int) -> Array:
    """Places anywhere in the body, (N, 3) RAS mm."""
    values = scan.as_tensor()[0].numpy()
    voxels = np.argwhere(values > max(0.1, float(values.mean())))
    chosen = voxels[generator.integers(len(voxels), size=count)]
    return voxel_to_world(chosen, as_affine(scan.affine))
