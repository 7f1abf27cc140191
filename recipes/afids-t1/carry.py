"""Carry the 32 AFIDs from expert templates to the heads of IXI: the training points of `afids-t1`.

No individual head with expert points is at hand, so the points come from four templates (not
Colin27, which is held out) by registration with SimpleITK:

1. Brains are compared, not heads: a template's brain is cut out with the mask of the template that
   is a brain already, a subject's with its label map.
2. Every template's points are carried to the two sharp templates, each of which then has four
   opinions on every point.
3. Both sharp templates are registered to each subject, so that it gets eight candidates for a
   point: by template and by way.
4. The sharp templates say about where the point is, those whose candidates lie near count, by how
   sharp they are. A point that fewer than two templates agree on is left out.
5. The sharp templates are averages of the same people and lead to nearly the same place also where
   registration fails, as it does with ventricles much smaller than theirs. So a point on a
   structure that the head's own label map has must lie near its surface there.

A registration is affine (mutual information) and then deformable: symmetric demons (Thirion 1998,
Vercauteren et al. 2009) at 4 and 2 mm, on images of local contrast, in which blurred scans and
those with a bias field look alike.

`python recipes/afids-t1/carry.py subjects` writes points.csv beside this file, about 20 seconds a
head on one core; heads that are done are kept in --work. `... templates` measures the way itself:
each template's points against those carried to it from the others. Neither looks at a holdout
subject or at Colin27.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter

from medrl.evaluation.atlas import register_affine
from medrl.files import atomic_path
from medrl.volume.space import lps_to_ras, ras_to_lps
from medrl_datasets import afids_templates, ixi_brain_t1, root_of
from medrl_datasets.skull_strip import brain_mask

Array = NDArray[np.float64]

#: The templates whose points are carried, and how much they count: about the inverse square of how
#: far they lie from the others'. In the blurred averages of linear registration the posterior
#: commissure and the tips of ventricles are millimetres off. The first is a brain without skull.
TEMPLATES = {
    "MNI152NLin2009cAsym_T1w_brain": 1.0,
    "MNI152NLin2009aSym_T1w": 1.0,
    "MNI152Lin_T1w": 0.3,
    "MNI305_T1w": 0.1,
}
BRAIN, *HEADS = TEMPLATES
SHARP = tuple(TEMPLATES)[:2]
LANDMARKS = afids_templates.LANDMARKS

#: Corners of the box that holds the brain in every template, LPS mm, and its voxel size in mm.
BOX = ((-78.0, -80.0, -78.0), (78.0, 114.0, 88.0))
SPACING = 2.0
#: Of the demons: how much coarser, iterations, smoothing of the field in voxels.
SCHEDULE = ((2, 60, 1.5), (1, 30, 1.2))
#: Width in mm of the surroundings that a voxel's contrast is measured in.
SURROUNDINGS = 5.0
#: Candidates further than this from where the point is about, mm, do not agree; so many templates
#: have to.
TOLERANCE = 3.0
AGREEING = 2
#: Points on structures that label maps have, and the values there: they lie at the surface, up to
#: TOLERANCE. The tips of the horns are not among them, for the labels end before them.
SURFACES = {
    "R LV at AC": 51,
    "L LV at AC": 52,
    "R LV at PC": 51,
    "L LV at PC": 52,
    "genu of CC": 95,
    "splenium of CC": 95,
    "culmen": 71,
}


def template_grid() -> sitk.Image:
    """An empty image of the templates' brain box."""
    low, high = np.array(BOX)
    grid = sitk.Image(((high - low) / SPACING + 1).astype(int).tolist(), sitk.sitkFloat32)
    grid.SetOrigin(low.tolist())
    grid.SetSpacing([SPACING] * 3)
    return grid


def resample(image: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """Bring an image onto the template grid; `transform` maps points (LPS) of the grid to it."""
    if max(image.GetSpacing()) < 0.75 * SPACING:
        image = sitk.SmoothingRecursiveGaussian(image, SPACING / 2.5)
    return sitk.Resample(image, template_grid(), transform or sitk.Transform(), sitk.sitkLinear)


def like(array: NDArray[np.generic], image: sitk.Image) -> sitk.Image:
    """An array (K, J, I) as a float image in the place of another."""
    made = sitk.GetImageFromArray(array.astype(np.float32))
    made.CopyInformation(image)
    return made


def local_contrast(brain: sitk.Image) -> sitk.Image:
    """How a voxel differs from its surroundings, in their standard deviations, 0 outside the brain.

    Mean and deviation are Gaussian averages over the brain only, so that neither its edge nor the
    bias field counts.
    """
    values = sitk.GetArrayFromImage(brain)
    inside = values > 0
    low, high = np.percentile(values[inside], (2, 98))
    values = np.where(inside, np.clip((values - low) / (high - low), 0, 1.1), 0)
    sigma = SURROUNDINGS / np.array(brain.GetSpacing()[::-1])
    weight = gaussian_filter(inside.astype(float), sigma) + 1e-3
    difference = (values - gaussian_filter(values, sigma) / weight) * inside
    deviation = np.sqrt(gaussian_filter(difference**2, sigma) / weight) + 0.06
    return like(20 * np.clip(difference / deviation, -3, 3), brain)


def demons(fixed: sitk.Image, moving: sitk.Image) -> sitk.Image:
    """Displacement field (mm, LPS) that takes points of `fixed` to `moving`, on the same grid."""
    field = None
    for shrink, iterations, sigma in SCHEDULE:
        pair = [fixed, moving]
        if shrink > 1:
            blur = shrink * SPACING / 2
            pair = [sitk.SmoothingRecursiveGaussian(image, blur) for image in pair]
            pair = [sitk.Shrink(image, [shrink] * 3) for image in pair]
        method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
        method.SetNumberOfIterations(iterations)
        method.SetStandardDeviations(sigma)
        if field is None:
            field = method.Execute(*pair)
        else:
            field = method.Execute(*pair, sitk.Resample(field, pair[0]))
    return field


def register(fixed: sitk.Image, moving: sitk.Image, affine: sitk.Transform) -> sitk.Transform:
    """Register two brains.

    Args:
        fixed: A template's brain on the template grid.
        moving: Another brain, on any grid.
        affine: Maps points of the template to the other roughly.

    Returns:
        The transform that maps points (LPS) of the template to the other.
    """
    field = demons(local_contrast(fixed), local_contrast(resample(moving, affine)))
    transform = sitk.CompositeTransform([affine])
    transform.AddTransform(
        sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    )
    return transform


def move(transform: sitk.Transform, points_world: Array) -> Array:
    """Move points (N, 3), RAS mm."""
    moved = [transform.TransformPoint(point) for point in ras_to_lps(points_world).tolist()]
    return np.asarray(lps_to_ras(np.array(moved)))


class Templates:
    """The four templates: brains on the template grid, and points (32, 3) RAS mm."""

    def __init__(self, root: Path) -> None:
        """Read them.

        Args:
            root: Folder of the data set afids_templates.
        """
        landmarks = afids_templates.DATASET.landmarks(root)
        self.points = {
            name: np.array([landmarks[name][landmark] for landmark in LANDMARKS])
            for name in TEMPLATES
        }
        images = {
            name: sitk.ReadImage(str(root / "images" / f"{name}.nii.gz"), sitk.sitkFloat32)
            for name in TEMPLATES
        }
        mask = sitk.Cast(images[BRAIN] > 0, sitk.sitkFloat32)
        brain = sitk.Mask(resample(images[BRAIN]), resample(mask) > 0.5)
        self.brains = {BRAIN: brain}
        for name in HEADS:
            back = register_affine(brain, images[name]).GetInverse()
            self.brains[name] = sitk.Mask(resample(images[name]), resample(mask, back) > 0.5)

    def carried(self, source: str, target: str) -> Array:
        """The points of one template carried to another, (32, 3) RAS mm."""
        if source == target:
            return self.points[source]
        fixed, moving = self.brains[source], self.brains[target]
        return move(register(fixed, moving, register_affine(fixed, moving)), self.points[source])


def subject_brain(root: Path, subject: str) -> sitk.Image:
    """Read a head of IXI without its skull."""
    files = ixi_brain_t1.DATASET.files(root, subject)
    head = sitk.ReadImage(str(files["image"]), sitk.sitkFloat32)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(files["label"])))
    return like(sitk.GetArrayFromImage(head) * brain_mask(labels.astype(np.int32)), head)


def fuse(candidates: Array, weights: Array) -> tuple[Array, Array, NDArray[np.int64]]:
    """Fuse what the templates say.

    Args:
        candidates: (templates, ways, points, 3) RAS mm.
        weights: (templates,) how much each counts.

    Returns:
        Positions (points, 3), the weighted mean of the templates that agree; their spread
        (points,), the root of the weighted mean square distance of their candidates from it, mm;
        and how many agree (points,). A template agrees if all its candidates are close to the
        median of those of the heaviest templates. Where none agrees, position and spread are NaN.
    """
    about = np.median(candidates[weights == weights.max()], axis=(0, 1))
    agrees = np.linalg.norm(candidates - about, axis=-1).max(axis=1) <= TOLERANCE
    share = agrees * weights[:, None]
    with np.errstate(invalid="ignore"):
        share = share / share.sum(axis=0)
    fused = (share[..., None] * candidates.mean(axis=1)).sum(axis=0)
    squares = ((candidates - fused) ** 2).sum(axis=-1).mean(axis=1)
    return fused, np.sqrt((share * squares).sum(axis=0)), agrees.sum(axis=0)


def carry(data: Path, work: Path, out: Path, limit: int | None) -> None:
    """Carry the points to the train and val subjects of IXI and write the table."""
    work.mkdir(parents=True, exist_ok=True)
    root = root_of("ixi_brain_t1", data / "ixi_brain_t1")
    splits = ixi_brain_t1.DATASET.splits(root)
    subjects = (*splits["val"], *splits["train"])[:limit]
    waiting = [subject for subject in subjects if not (work / f"{subject}.json").exists()]
    if waiting:
        templates = Templates(data / "afids_templates")
        points = {
            way: np.concatenate([templates.carried(source, way) for source in TEMPLATES])
            for way in SHARP
        }
    for number, subject in enumerate(waiting):
        brain = subject_brain(root, subject)
        affine = register_affine(templates.brains[BRAIN], brain)
        ways = [
            move(register(templates.brains[way], brain, affine), points[way]).round(3)
            for way in SHARP
        ]
        candidates = np.stack(ways).reshape(len(SHARP), len(TEMPLATES), -1, 3).swapaxes(0, 1)
        with atomic_path(work / f"{subject}.json") as temporary:
            temporary.write_text(json.dumps(candidates.tolist()))
        print(f"{number + 1} of {len(waiting)}: {subject}", flush=True)
    write_table(out, root, subjects, work)


def surface_distance(labels: sitk.Image, value: int, point_world: Array) -> float:
    """Distance in mm of a point (3,), RAS mm, from the voxels at the surface of a label."""
    inside = sitk.GetArrayFromImage(labels) == value
    k, j, i = np.nonzero(inside & ~binary_erosion(inside))
    axes = np.reshape(labels.GetDirection(), (3, 3)) * labels.GetSpacing()
    surface = np.stack((i, j, k), axis=1) @ axes.T + labels.GetOrigin()
    return float(np.linalg.norm(surface - ras_to_lps(point_world), axis=1).min(initial=np.inf))


def write_table(out: Path, root: Path, subjects: Sequence[str], work: Path) -> None:
    """Fuse the candidates of every subject and write the table; print the spread of each point."""
    weights = np.array(list(TEMPLATES.values()))
    rows: list[tuple[object, ...]] = []
    spreads: dict[str, list[float]] = {landmark: [] for landmark in LANDMARKS}
    for subject in sorted(subjects):
        candidates = np.array(json.loads((work / f"{subject}.json").read_text()))
        labels = sitk.ReadImage(str(ixi_brain_t1.DATASET.files(root, subject)["label"]))
        fused = zip(LANDMARKS, *fuse(candidates, weights), strict=True)
        for landmark, point, spread, count in fused:
            if count < AGREEING:
                continue
            region = SURFACES.get(landmark)
            if region and surface_distance(labels, region, point) > TOLERANCE:
                continue
            x, y, z = (f"{value:.2f}" for value in point)
            rows.append((subject, landmark, x, y, z, f"{spread:.2f}", count))
            spreads[landmark].append(spread)
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("subject", "landmark", "x", "y", "z", "spread_mm", "templates"))
        writer.writerows(rows)
    print(f"{'landmark':32}{'heads':>6}{'spread, mean and 90 %, mm':>28}")
    for landmark, some in spreads.items():
        mean, most = (np.mean(some), np.quantile(some, 0.9)) if some else (np.nan, np.nan)
        print(f"{landmark:32}{len(some):6}{mean:20.2f}{most:8.2f}")
    print(f"{out}: {len(rows)} points of {len(subjects)} heads")


def measure(data: Path) -> None:
    """Print how far the points carried to a template from the three others lie from its own, mm."""
    templates = Templates(data / "afids_templates")
    errors = []
    for target in TEMPLATES:
        others = [name for name in TEMPLATES if name != target]
        carried = np.array([templates.carried(source, target) for source in others])
        for source, points in zip(others, carried, strict=True):
            distance = np.linalg.norm(points - templates.points[target], axis=-1)
            print(f"{source} to {target}: mean {distance.mean():.2f}", flush=True)
        fused, _, _ = fuse(carried[:, None], np.array([TEMPLATES[name] for name in others]))
        errors.append(np.linalg.norm(fused - templates.points[target], axis=-1))
    print(f"\n{'fused from the others':32}" + "".join(f"{name[:18]:>20}" for name in TEMPLATES))
    for landmark, row in zip(LANDMARKS, np.transpose(errors), strict=True):
        print(f"{landmark:32}" + "".join(f"{error:20.2f}" for error in row))
    print(f"{'mean':32}" + "".join(f"{row.mean():20.2f}" for row in errors))


def main() -> None:
    """Carry points, or measure how well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("subjects", "templates"))
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/afids-t1/carried"))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("points.csv"))
    parser.add_argument("--limit", type=int, help="carry to the first so many heads only")
    options = parser.parse_args()
    # The optimiser sums in another order with every other number of threads.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    if options.what == "subjects":
        carry(options.data, options.work, options.out, options.limit)
    else:
        measure(options.data)


if __name__ == "__main__":
    main()
