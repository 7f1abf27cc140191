"""What registration is judged on: pairs of scans with a known answer.

A registration is a matrix (4, 4) that maps points of the fixed scan to points of the moving one,
world RAS mm. Sets of cases are listed without reading a voxel; scans are made when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import combinations
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.spatial.transform import Rotation

from evaluation import ixi
from evaluation import registration_stress as stress
from evaluation.images import Array
from medrl.volume.itk import from_sitk, to_sitk
from medrl.volume.space import LPS_FROM_RAS, apply_affine, lps_to_ras
from medrl_datasets import ct_lung_pair

#: A registration with a mean error below this is right.
SUCCESS_MM = 2.0
#: Regions whose overlap tells how well two subjects are aligned.
REGIONS = 20

#: Scans of the MS patient; the first is the fixed side of every reference transform.
MS_SCANS = ("FLAIR", "T1", "T2", "FLAIR later")
MS_TURNS = 6
MS_ANGLE_DEG, MS_SHIFT_MM = 60.0, 30.0
_MS_TO_FIRST = {
    "T1": "study1_T1W_intrastudy_to_FLAIR.txt",
    "T2": "study1_T2W_intrastudy_to_FLAIR.txt",
}
_MS_TO_COMMON = ("study1_FLAIR_to_common_space.txt", "study2_FLAIR_to_common_space.txt")
_MS_FILES = ("study1_FLAIR", "study1_T1W", "study1_T2W", "study2_FLAIR")


@dataclass(frozen=True, eq=False)
class ScanPair:
    """Two scans and the right answer.

    Attributes:
        name: Unique in its set.
        band: How far apart the scans are, or what they are.
        contrast: How the moving scan differs.
        kind: ``rigid`` or ``affine``: what to look for.
        fixed: (1, I, J, K).
        moving: (1, I, J, K).
        truth_world: (4, 4) fixed to moving, RAS mm; None where only points or labels are known.
        points_world: (N, 3) of the fixed scan, RAS mm; none where labels judge.
        targets_world: (N, 3), where they are in the moving scan.
        labels: Label maps of the fixed and the moving scan, where they judge.
        start_world: (4, 4) where to start; the method's own choice if None.
        description: The case in numbers.
    """

    name: str
    band: str
    contrast: str
    kind: str
    fixed: MetaTensor
    moving: MetaTensor
    truth_world: Array | None
    points_world: Array
    targets_world: Array
    labels: tuple[sitk.Image, sitk.Image] | None = None
    start_world: Array | None = None
    description: dict[str, object] = field(default_factory=dict)

    def error_mm(self, transform_world: Array) -> float:
        """Mean distance of the moved points (N, 3) from where they belong, mm."""
        moved = apply_affine(transform_world, self.points_world)
        return float(np.linalg.norm(moved - self.targets_world, axis=1).mean())

    @property
    def metric(self) -> str:
        """``error_mm``, or ``dice`` of label maps."""
        return "error_mm" if self.labels is None else "dice"

    def measure(self, transform_world: Array) -> float:
        """The value of :attr:`metric`."""
        if self.labels is None:
            return self.error_mm(transform_world)
        return mean_dice(*self.labels, transform_world)


@dataclass(frozen=True)
class PlannedPair:
    """A case that is made when called."""

    name: str
    band: str
    contrast: str
    make: Callable[[], ScanPair]


def stress_case(
    source: Callable[[], stress.Head], band: str, contrast: str, number: int
) -> ScanPair:
    """A head next to itself in another pose and contrast.

    Args:
        source: Gives the head.
        band: A band of the stress recipe.
        contrast: A contrast of the stress recipe.
        number: Of the pose; the same for all contrasts.
    """
    head = source()
    pose = stress.draw_pose(head, band, number)
    rng = stress.appearance_rng(head, band, number, contrast)
    truth = LPS_FROM_RAS @ pose @ LPS_FROM_RAS
    points = lps_to_ras(head.points)
    return ScanPair(
        name=f"{head.name} {band} {number:02d} {contrast}",
        band=band,
        contrast=contrast,
        kind="rigid",
        fixed=from_sitk(head.fixed),
        moving=from_sitk(head.moving(pose, contrast, rng)),
        truth_world=truth,
        points_world=points,
        targets_world=apply_affine(truth, points),
        description={"angle_deg": stress.angle_deg(pose), "visible": head.visible(pose)},
    )


def template() -> list[PlannedPair]:
    """The template: ten poses in each band and twenty at any angle, each in both contrasts."""
    numbers = {**dict.fromkeys(stress.BANDS, 10), stress.ANY: 20}
    return [
        _planned_stress(stress.template, "MNI152", band, contrast, number)
        for band, count in numbers.items()
        for contrast in stress.CONTRASTS
        for number in range(count)
    ]


def heads(split: str) -> list[PlannedPair]:
    """Whole heads of a split of IXI, one case in each band, the contrasts by turns."""
    return [
        _planned_stress(partial(stress.subject, name), name, band, contrast, number)
        for number, name in enumerate(ixi.subjects(split))
        for row, band in enumerate((*stress.BANDS, stress.ANY))
        for contrast in [stress.CONTRASTS[(number + row) % 2]]
    ]


def astray(starts: int = 2) -> list[PlannedPair]:
    """Holdout heads in any orientation, each from single starts in random orientations.

    The centres of the points lie together, which mostly leads to the best of the wrong places.
    """
    return [
        PlannedPair(
            f"{plan.name} from {start}", plan.band, plan.contrast, partial(_astray, plan, start)
        )
        for plan in heads("holdout")
        if plan.band == stress.ANY
        for start in range(starts)
    ]


def _astray(plan: PlannedPair, number: int) -> ScanPair:
    case = plan.make()
    seed = [2026, number, *plan.name.encode()]
    start = np.eye(4)
    start[:3, :3] = Rotation.random(random_state=np.random.default_rng(seed)).as_matrix()
    start[:3, 3] = case.targets_world.mean(axis=0) - start[:3, :3] @ case.points_world.mean(axis=0)
    return replace(case, start_world=start)


def _planned_stress(
    source: Callable[[], stress.Head], name: str, band: str, contrast: str, number: int
) -> PlannedPair:
    title = f"{name} {band} {number:02d} {contrast}"
    return PlannedPair(title, band, contrast, partial(stress_case, source, band, contrast, number))


def ms() -> list[PlannedPair]:
    """Every two scans of the MS patient, six misalignments each."""
    return [
        PlannedPair(
            f"{fixed} to {moving} {turn}",
            f"{fixed} to {moving}",
            "as scanned",
            partial(ms_case, fixed, moving, turn),
        )
        for fixed, moving in combinations(MS_SCANS, 2)
        for turn in range(MS_TURNS)
    ]


def ms_case(fixed: str, moving: str, turn: int) -> ScanPair:
    """Two scans as they were taken; the header of the moving one is turned and shifted.

    The rotation is up to 60 degrees about each axis and about the scan's centre.
    """
    pair = (MS_SCANS.index(fixed), MS_SCANS.index(moving))
    rng = np.random.default_rng([2028, *pair, turn])
    angles = rng.uniform(-MS_ANGLE_DEG, MS_ANGLE_DEG, 3)
    shift = rng.uniform(-MS_SHIFT_MM, MS_SHIFT_MM, 3)
    scan = _ms_scan(moving)
    affine = np.asarray(scan.affine)
    center = apply_affine(affine, (np.array(scan.shape[1:]) - 1) / 2)
    placed = stress.about(stress.turn(angles), shift, center)
    scan = MetaTensor(scan.as_tensor(), affine=torch.from_numpy(placed @ affine))
    truth = placed @ ms_reference(moving) @ np.linalg.inv(ms_reference(fixed))
    points = apply_affine(ms_reference(fixed), _ms_points())
    return ScanPair(
        name=f"{fixed} to {moving} {turn}",
        band=f"{fixed} to {moving}",
        contrast="as scanned",
        kind="rigid",
        fixed=_ms_scan(fixed),
        moving=scan,
        truth_world=truth,
        points_world=points,
        targets_world=apply_affine(truth, points),
        description={"angle_deg": stress.angle_deg(placed)},
    )


def ms_reference(name: str) -> Array:
    """The reference affine (4, 4) from the first FLAIR to a scan, RAS mm."""
    if name == MS_SCANS[0]:
        return np.eye(4)
    if name in _MS_TO_FIRST:
        return _read_reference(_ms_root() / _MS_TO_FIRST[name])
    first, later = (_read_reference(_ms_root() / file) for file in _MS_TO_COMMON)
    return np.asarray(later @ np.linalg.inv(first))


def _read_reference(path: Path) -> Array:
    transform = sitk.ReadTransform(str(path))
    rotation = np.reshape(transform.GetParameters()[:9], (3, 3))
    shift, center = np.array(transform.GetParameters()[9:]), transform.GetFixedParameters()
    matrix = stress.about(rotation, shift, np.array(center))
    return np.asarray(LPS_FROM_RAS @ matrix @ LPS_FROM_RAS)


def _ms_root() -> Path:
    return ixi.data_root() / "ms_multimodal" / "patient01"


def _ms_scan(name: str) -> MetaTensor:
    path = _ms_root() / f"{_MS_FILES[MS_SCANS.index(name)]}.nii.gz"
    return from_sitk(sitk.ReadImage(str(path), sitk.sitkFloat32))


@cache
def _ms_points() -> Array:
    """Points (100, 3) of the brain of the first FLAIR, RAS mm.

    The patient has no mask of the brain: it is taken as the head 15 mm below its surface and at
    most 100 mm below its top.
    """
    scan = to_sitk(_ms_scan(MS_SCANS[0]))
    head = sitk.OtsuThreshold(scan, 0, 1)
    spacing = np.array(scan.GetSpacing())
    ball = [int(n) for n in np.ceil(6 / spacing)]
    head = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(head, ball))
    depth = sitk.SignedMaurerDistanceMap(
        head, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    inside = sitk.GetArrayFromImage(depth)
    top = np.flatnonzero((inside > 0).any(axis=(1, 2))).max()
    lowest = max(0, top - int(100 / spacing[2]))
    brain = inside > 15
    brain[:lowest] = False
    return lps_to_ras(stress.sample(brain, scan, np.random.default_rng(12345)))


def lung() -> list[PlannedPair]:
    """The CT lung at two dates, by a rigid and by an affine transform."""
    return [
        PlannedPair(kind, kind, "CT, two dates", partial(lung_case, kind))
        for kind in ("rigid", "affine")
    ]


def lung_case(kind: str) -> ScanPair:
    """The lung at two dates, its padding lifted to the Hounsfield number of air."""
    root = ixi.data_root() / "ct_lung_pair"
    scans = [
        from_sitk(sitk.Clamp(sitk.ReadImage(entry["image"], sitk.sitkFloat32), lowerBound=-1024.0))
        for entry in sorted(
            ct_lung_pair.DATASET.datalist(root)["test"], key=lambda entry: entry["subject"]
        )
    ]
    points = ct_lung_pair.DATASET.landmarks(root)
    return ScanPair(
        name=kind,
        band=kind,
        contrast="CT, two dates",
        kind=kind,
        fixed=scans[0],
        moving=scans[1],
        truth_world=None,
        points_world=np.stack(list(points["baseline"].values())),
        targets_world=np.stack(list(points["followup"].values())),
    )


def two_subjects(*, apart: int = 7) -> list[PlannedPair]:
    """Every head of the IXI holdout with another one, by an affine transform."""
    names = ixi.subjects("holdout")
    return [
        PlannedPair(f"{one} to {other}", "two subjects", "T1", partial(subjects_case, one, other))
        for one, other in zip(names, names[apart:] + names[:apart], strict=True)
    ]


def subjects_case(fixed: str, moving: str) -> ScanPair:
    """Two heads as they were scanned, judged by their label maps."""
    return ScanPair(
        name=f"{fixed} to {moving}",
        band="two subjects",
        contrast="T1",
        kind="affine",
        fixed=ixi.load(fixed).scan(),
        moving=ixi.load(moving).scan(),
        truth_world=None,
        points_world=np.empty((0, 3)),
        targets_world=np.empty((0, 3)),
        labels=(stress.ixi_labels(fixed), stress.ixi_labels(moving)),
    )


def mean_dice(fixed: sitk.Image, moving: sitk.Image, transform_world: Array) -> float:
    """Mean Dice of the 20 regions that are largest in both label maps together.

    Args:
        fixed: Label map.
        moving: Label map, resampled onto the other by nearest neighbour.
        transform_world: (4, 4) fixed to moving, RAS mm.
    """
    pose = stress.to_sitk_affine(LPS_FROM_RAS @ transform_world @ LPS_FROM_RAS)
    one, other = sitk.GetArrayFromImage(fixed), sitk.GetArrayFromImage(moving)
    sizes = np.bincount(one.ravel(), minlength=256) + np.bincount(other.ravel(), minlength=256)
    sizes[0] = 0
    carried = sitk.GetArrayFromImage(
        sitk.Resample(moving, fixed, pose, sitk.sitkNearestNeighbor, 0)
    )
    dice = []
    for code in np.argsort(sizes)[-REGIONS:]:
        a, b = one == code, carried == code
        dice.append(2 * (a & b).sum() / (a.sum() + b.sum()))
    return float(np.mean(dice))


#: The sets by the names of the command line.
SETS: dict[str, Callable[[], list[PlannedPair]]] = {
    "template": template,
    "ixi-holdout": partial(heads, "holdout"),
    "ixi-val": partial(heads, "val"),
    "ixi-astray": astray,
    "ms": ms,
    "lung": lung,
    "ixi-affine": two_subjects,
}
