"""Reading a user's scans with masks or boxes, for training and evaluation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy.spatial import ConvexHull
from torch import Tensor

from medrl.data.datalist import Entry, read_samples, read_targets
from medrl.data.loading import load_samples
from medrl.data.targets import Target, mask_of
from medrl.errors import MedrlError
from medrl.localization.kinds import Objects
from medrl.volume.box_files import read_boxes
from medrl.volume.channels import Channel, stacked
from medrl.volume.prepare import Preprocessing, ResampleIsotropic
from medrl.volume.read import read, read_labels
from medrl.volume.space import apply_affine, as_affine, world_to_voxel

Array = NDArray[np.float64]

#: Most points that stand for the shape of an object; only its outermost ones matter.
_MOST_POINTS = 256
#: Corners of a voxel, from its centre.
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])


@dataclass(frozen=True)
class Sample:
    """A scan of a datalist with what is known of its boxes.

    Attributes:
        image: The scan's file or folder; of several images the first.
        mask: File of the labels; None where boxes are given.
        targets: Values of the mask by the name of what they make up.
        boxes: File of boxes; None where a mask is given.
        images: Files by channel, of a model that looks at several images; else empty.
    """

    image: Path
    mask: Path | None = None
    targets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    boxes: Path | None = None
    images: Mapping[str, Path] = field(default_factory=dict)

    def scan(self) -> MetaTensor | dict[str, MetaTensor]:
        """The scan, or its images by channel.

        Raises:
            MedrlError: If a file cannot be read.
        """
        if self.images:
            return {name: read(path) for name, path in self.images.items()}
        return read(self.image)

    @property
    def name(self) -> str:
        """The scan's file name without its endings."""
        return self.image.name.split(".")[0]

    def shapes_world(self) -> dict[str, Array]:
        """Points (P, 3) RAS mm on the outermost surface of every object, by name.

        Of a mask, corners of its voxels; of a box, points of the ellipsoid inside it, as nothing
        that fills its box has the corners of one.

        Raises:
            MedrlError: If a file cannot be read.
        """
        if self.boxes is not None:
            return {name: _ellipsoid(box) for name, box in read_boxes(self.boxes).items()}
        assert self.mask is not None
        labels = read_labels(self.mask)
        affine = as_affine(labels.affine)
        found = {}
        for name, values in self.targets.items():
            inside = mask_of(labels, Target(name, values), source=self.mask).numpy()
            if inside.any():
                found[name] = apply_affine(affine, _outermost(inside))
        return found

    def boxes_world(self) -> dict[str, Array]:
        """Boxes (2, 3) RAS mm along the world's axes, by name."""
        shapes = self.shapes_world()
        return {name: np.stack([p.min(axis=0), p.max(axis=0)]) for name, p in shapes.items()}


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A scan with the shapes of its objects, on the grid where agents look.

    Attributes:
        name: Subject, for messages.
        volume: (C, I, J, K) float32, isotropic at the finest spacing; not yet normalised unless
            its channels have units.
        shapes: (R, P, 3) float32, outermost points of every object, voxels of that grid; its box is
            that of its points, whichever way they are turned. NaN where it is not there.
        objects: What the rows of ``shapes`` are; each a target of its own if left out.
        tissues: Not known of boxed scans.
    """

    name: str
    volume: Tensor
    shapes: Tensor
    objects: Objects | None = None
    tissues: None = None

    @property
    def targets(self) -> int:
        """How many targets there are, K."""
        return len(self.shapes) if self.objects is None else len(self.objects.targets)

    @property
    def target(self) -> Tensor:
        """(R,) int64, which target each row of ``shapes`` is."""
        return torch.arange(len(self.shapes)) if self.objects is None else self.objects.target

    @property
    def points_voxel(self) -> Tensor:
        """The points of all objects, (R * P, 3)."""
        return self.shapes.flatten(0, 1)


def read_datalist(
    path: Path,
    targets: Mapping[str, tuple[int, ...]] | None = None,
    channels: Sequence[Channel] = (),
) -> dict[str, list[Sample]]:
    """Read a MONAI datalist of scans with masks or boxes.

    The file is JSON: ``{"training": [{"image": "a.nii.gz", "label": "a_mask.nii.gz"}, ...], ...}``,
    or with ``"boxes": "a.mrk.json"`` (or .csv) in place of the label; paths relative to it.

    Args:
        path: The JSON file.
        targets: What the values of masks are called; as the datalist says (``"targets"``), or
            one target, ``object``, with every value 1, if left out.
        channels: Images that the model looks at: ``image`` is an object of paths then.

    Returns:
        Samples of each split; missing splits are empty.

    Raises:
        MedrlError: If the file or one it names is missing or not as expected.
    """
    named = dict(targets or read_targets(path) or {"object": (1,)})

    def sample(entry: Entry) -> Sample:
        images = entry.images([channel.name for channel in channels]) if channels else {}
        image = next(iter(images.values())) if images else entry.file("image")
        if "boxes" in entry.fields:
            return Sample(image, boxes=entry.path("boxes"), images=images)
        if "label" not in entry.fields:
            raise MedrlError(f'{path}: {entry.where} needs "label" or "boxes"')
        return Sample(image, entry.file("label"), named, images=images)

    return read_samples(path, keys=("image",), sample=sample)


def objects_of(samples: Sequence[Sample]) -> Objects:
    """Everything that the samples hold, in the order of the masks' targets.

    Raises:
        MedrlError: If there is nothing.
    """
    names: dict[str, None] = {}
    for sample in samples:
        names |= dict.fromkeys(sample.targets if sample.boxes is None else read_boxes(sample.boxes))
    if not names:
        raise MedrlError("no box is known in any training scan")
    return Objects.of(tuple(names))


def load_labelled(
    samples: Sequence[Sample],
    objects: Objects,
    preprocessing: Preprocessing,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[LabelledScan]:
    """Read scans onto the grid where agents look, before normalisation.

    Args:
        samples: What to read.
        objects: What may be in them.
        preprocessing: Gives the grid's spacing, and the units of channels if they have any.
        progress: Called with the scans read and their number.

    Raises:
        MedrlError: If a scan cannot be read.
    """
    resample = ResampleIsotropic(spacing=preprocessing.spacing)

    def load(sample: Sample) -> LabelledScan:
        scan = sample.scan()
        if isinstance(scan, dict):
            grid = preprocessing(stacked(scan, preprocessing.channels, preprocessing.spacing))
        else:
            grid = resample(scan)
        known, affine = sample.shapes_world(), as_affine(grid.affine)
        shapes = torch.full((len(objects.names), _MOST_POINTS, 3), torch.nan)
        for row, name in enumerate(objects.names):
            if name in known:
                points = torch.from_numpy(world_to_voxel(known[name], affine)).float()
                shapes[row] = points[torch.arange(_MOST_POINTS) % len(points)]
        volume = grid.as_tensor().float()
        return LabelledScan(sample.name, volume - volume.min(), shapes, objects)

    return load_samples(
        samples,
        load,
        files=lambda one: [
            f for f in (one.image, *one.images.values(), one.mask, one.boxes) if f is not None
        ],
        progress=progress,
    )


def boxes_of(shapes: Tensor) -> Tensor:
    """Boxes (K, 2, 3) of shapes (K, P, 3); NaN of what is not there."""
    return torch.stack([shapes.amin(dim=1), shapes.amax(dim=1)], dim=1)


def _outermost(inside: NDArray[np.bool_]) -> Array:
    """At most 256 corners of the voxels of a mask that span its hull, (P, 3) voxels."""
    # The first and the last voxel of every line along an axis have the hull of all.
    j, k = np.nonzero(inside.any(axis=0))
    lines = inside[:, j, k]
    ends = (lines.argmax(axis=0), len(inside) - 1 - lines[::-1].argmax(axis=0))
    voxels = np.concatenate([np.column_stack([i, j, k]) for i in ends])
    points = np.unique((voxels[:, None] + _CORNERS).reshape(-1, 3), axis=0)
    points = points[ConvexHull(points).vertices]
    if len(points) > _MOST_POINTS:
        ways = np.random.default_rng(0).normal(size=(_MOST_POINTS - 6, 3))
        ways = np.concatenate([np.eye(3), -np.eye(3), ways])
        points = points[np.unique((points @ ways.T).argmax(axis=0))]
    return np.asarray(points, dtype=np.float64)


def _ellipsoid(box: Array) -> Array:
    """Points of the ellipsoid inside a box (2, 3), those that touch its faces among them."""
    ways = np.random.default_rng(0).normal(size=(_MOST_POINTS - 6, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    ways = np.concatenate([np.eye(3), -np.eye(3), ways])
    return np.asarray(box.mean(axis=0) + ways * (box[1] - box[0]) / 2, dtype=np.float64)
