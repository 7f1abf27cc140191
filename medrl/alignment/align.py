"""Bring a head into the AC-PC frame or MNI space: the public face of the alignment."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.alignment.frames import (
    MNI_BOX,
    TITLES,
    Array,
    Fit,
    Origin,
    To,
    fit,
    needed,
)
from medrl.errors import MedrlError
from medrl.files import prepare_folder, stem_of
from medrl.landmark.detect import LandmarkDetector
from medrl.landmark.detection import Detection
from medrl.results.provenance import file_of
from medrl.systems import Progress
from medrl.trajectory import Trajectory
from medrl.trajectory.live import Watch
from medrl.volume.resample import check_size, place_scan, resample_onto
from medrl.volume.space import apply_affine, as_affine, box_corners, spacing_of

if TYPE_CHECKING:
    from medrl.results import SavedFiles

#: The model that finds the 32 AFIDs.
MODEL = "afids-t1"
#: A point less sure than this counts little, but counts.
_LEAST_WEIGHT = 0.05
#: Finer than any scan of a head.
_FINEST_MM = 0.05


@dataclass(frozen=True, eq=False)
class Alignment:
    """A head in another frame.

    Attributes:
        to: ``acpc`` or ``mni``.
        transform_world: (4, 4), that frame's world to the scan's (fixed to moving), RAS mm: rigid
            (AC-PC) or affine (MNI).
        fit: What it rests on: the points used, how far each is off (mm), figures of the whole.
        detection: The points as they were found, in the scan's world.
        seconds: Wall time, finding the points included.
        origin: Of the AC-PC frame.
        spacing: Voxel size of the aligned scan, mm; None for the scan's own (AC-PC) or 1 (MNI).
        header: The aligned scan is the scan's voxels with a new affine; nothing is resampled.
    """

    to: To
    transform_world: Array
    fit: Fit
    detection: Detection
    seconds: float
    origin: Origin = "AC"
    spacing: float | None = None
    header: bool = False

    @property
    def scan(self) -> MetaTensor:
        """The scan as it was read, MetaTensor (1, I, J, K)."""
        if self.detection.scan is None:
            raise MedrlError("an alignment without its scan cannot be used")
        return self.detection.scan

    @property
    def trajectory(self) -> Trajectory:
        """The path of every agent, in the scan's world."""
        return self.detection.trajectory

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each; what speaks against the alignment first."""
        own = [*self.doubts, *_left_out(self)]
        return (*own, *(line for line in self.detection.warnings if line not in own))

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why nobody should use it without a look at it, one line each."""
        unfit = self.detection.warnings[:1] if self.detection.unfit else ()
        doubtful = [name for name in ("AC", "PC") if name in self.detection.doubtful]
        lines = [f"{' and '.join(doubtful)} may be wrong"] if doubtful and self.to == "acpc" else []
        return (*unfit, *lines, *self.fit.doubts)

    @property
    def confidence(self) -> float | None:
        """How sure it is; None if nobody judged.

        AC-PC: the lesser of the probabilities that AC and PC are right. MNI: the expected share of
        points that are (:attr:`medrl.Detection.confidence`).
        """
        if self.to == "mni":
            return self.detection.confidence
        least = min(self.detection[name].confidence for name in ("AC", "PC"))
        return None if math.isnan(least) else float(least)

    @property
    def points_world(self) -> dict[str, Array]:
        """Points that are in the scan, (3,) by name, in the frame's world (RAS mm)."""
        back = np.linalg.inv(self.transform_world)
        return {
            lm.name: apply_affine(back, lm.position_world)
            for lm in self.detection.landmarks
            if lm.status != "absent"
        }

    def aligned(self) -> MetaTensor:
        """The scan in the frame.

        AC-PC: on a grid along the frame's axes that holds all of the scan, with its own voxel sizes
        or isotropic; a voxel's centre lies in the origin. MNI: on the grid of MNI152NLin2009cAsym,
        193 x 229 x 193 voxels of 1 mm. Linear interpolation, after smoothing along axes that lose
        resolution; outside is the scan's lowest value. With ``header`` the voxels as they are.

        Returns:
            MetaTensor (1, I, J, K), its affine to the frame's world (RAS mm).

        Raises:
            MedrlError: If it would not fit in memory.
        """
        placed = place_scan(self.scan, self.transform_world)
        if self.header:
            return placed
        affine, shape = _grid_of(self.to, placed, self.spacing)
        low = float(placed.as_tensor().min())
        moved = resample_onto(placed, affine=affine, shape=shape, background=low)
        return MetaTensor(moved.as_tensor(), affine=torch.from_numpy(affine))

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: object = None,
    ) -> SavedFiles:
        """Write everything there is to keep, all of it or nothing.

        ``<stem>_acpc.nii.gz`` (or ``_mni``) is the aligned scan, ``.tfm`` the ITK transform that
        resamples the scan and whatever lies in its world onto it, ``.matrix.txt`` the same as a
        4x4 matrix (RAS mm), ``.mrk.json`` and ``.csv`` the points in the frame, ``.report.json``
        what there is to say, ``.png`` a picture; ``<stem>.trajectory.json`` has every agent's path
        in the scan's own world.

        Args:
            folder: Made if missing.
            stem: What the files are called; after the scan's file if left out.
            picture: Draw the picture.
            pseudonyms: Nothing that is written names a patient but by the stem.

        Returns:
            Paths by kind: scan, transform, matrix, markups, table, trajectory, report, picture.

        Raises:
            MedrlError: If they cannot be written.
        """
        from medrl.alignment.results import save_alignment

        stem = stem or stem_of(Path(file_of(self.scan) or "scan"))
        return save_alignment(self, prepare_folder(Path(folder)), stem, picture=picture)


class Aligner:
    """Finds the frame of heads by the landmarks of a model.

    >>> from medrl import Aligner
    >>> aligner = Aligner.load("afids-t1")
    >>> aligner.align("head.nii.gz", to="acpc").save("out")
    """

    def __init__(self, detector: LandmarkDetector) -> None:
        """Use a detector that knows the points needed, under their AFIDs names."""
        self.detector = detector

    @classmethod
    def load(cls, name_or_dir: str | Path = MODEL, *, device: str = "cpu") -> Aligner:
        """Load a landmark model by its name, or any bundle folder.

        Args:
            name_or_dir: Of a landmark model.
            device: Torch device.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        return cls(LandmarkDetector.load(name_or_dir, device=device))

    def check(
        self,
        to: str = "acpc",
        *,
        origin: str = "AC",
        spacing: float | None = None,
        header: bool = False,
    ) -> None:
        """Refuse what cannot be asked for.

        Raises:
            MedrlError: If the model does not know the points needed, or options contradict each
                other.
        """
        for value, known in ((to, get_args(To)), (origin, get_args(Origin))):
            if value not in known:
                raise MedrlError(f"{value!r} is not one of {', '.join(known)}")
        if lack := needed(to, self.detector.landmark_names):
            name = self.detector.manifest.get("name")
            raise MedrlError(f"{name} does not do for {TITLES[to]}: {lack}; {MODEL} does")
        if header and to == "mni":
            raise MedrlError(
                "an affine transform shears the scan's axes, which few programs read: a new header "
                "alone is for the AC-PC frame"
            )
        if header and spacing is not None:
            raise MedrlError("a new header alone keeps the voxels: it goes without a spacing")
        if spacing is not None and not (math.isfinite(spacing) and spacing >= _FINEST_MM):
            raise MedrlError(f"the spacing must be at least {_FINEST_MM:g} mm, not {spacing:g}")

    def align(
        self,
        scan: str | Path | MetaTensor,
        *,
        to: To = "acpc",
        origin: Origin = "AC",
        spacing: float | None = None,
        header: bool = False,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Alignment:
        """Find the frame of a head.

        Args:
            scan: A file or folder (:func:`medrl.volume.read`), or a MetaTensor (1, I, J, K) with a
                voxel-to-world affine (RAS mm); any orientation, spacing and field of view.
            to: ``acpc``: rigid, AC in the origin, +y from PC to AC, x at right angles to the
                midsagittal plane, z upwards. ``mni``: affine, onto the expert points of
                MNI152NLin2009cAsym.
            origin: Of the AC-PC frame: ``AC``, or ``midpoint`` of AC and PC.
            spacing: Voxel size of the aligned scan, mm; left out: the scan's own (``acpc``), or 1.
            header: Keep the voxels and change the affine alone (``acpc``).
            progress: Called with the agents that have ended and their number.
            watch: Called at every step with the agents.

        Returns:
            The transform, what it rests on, and the scan in the frame.

        Raises:
            MedrlError: If the scan cannot be read or is not what the model was trained for, the
                model lacks points, AC or PC is not in the scan (``acpc``), or too few points are
                found.
        """
        self.check(to, origin=origin, spacing=spacing, header=header)
        began = time.perf_counter()
        detection = self.detector.detect(scan, progress=progress, watch=watch)
        return from_detection(
            detection, to=to, origin=origin, spacing=spacing, header=header, began=began
        )

    def align_many(
        self,
        scans: Sequence[MetaTensor],
        *,
        to: To = "acpc",
        origin: Origin = "AC",
        spacing: float | None = None,
        header: bool = False,
    ) -> list[Alignment | MedrlError]:
        """Find the frames of heads, the agents of all in shared batches.

        Args:
            scans: As for :meth:`align`.
            to: Likewise, as the rest.
            origin: Of the AC-PC frame.
            spacing: Voxel size of the aligned scans, mm.
            header: Keep the voxels.

        Returns:
            For each scan its alignment, or why there is none.

        Raises:
            MedrlError: As :meth:`check`.
        """
        how: dict[str, Any] = {"origin": origin, "spacing": spacing, "header": header}
        self.check(to, **how)
        found: list[Alignment | MedrlError] = []
        for one in self.detector.detect_many(scans, batch_size=max(1, len(scans))):
            try:
                found.append(
                    one if isinstance(one, MedrlError) else from_detection(one, to=to, **how)
                )
            except MedrlError as error:
                found.append(error)
        return found


def align(
    scan: str | Path | MetaTensor,
    *,
    to: To = "acpc",
    model: str | Path = MODEL,
    device: str = "cpu",
    origin: Origin = "AC",
    spacing: float | None = None,
    header: bool = False,
) -> Alignment:
    """Bring a head into the AC-PC frame or MNI space.

    For several scans, load an :class:`Aligner` once.

    Args:
        scan: A file or folder, or a MetaTensor (1, I, J, K) with its affine (voxel to RAS mm).
        to: ``acpc`` or ``mni``; see :meth:`Aligner.align`.
        model: Name or folder of a landmark model that knows the AFIDs needed.
        device: Torch device.
        origin: Of the AC-PC frame: ``AC``, or ``midpoint`` of AC and PC.
        spacing: Voxel size of the aligned scan, mm.
        header: Keep the voxels and change the affine alone (``acpc``).

    Returns:
        The transform (frame's world to the scan's, RAS mm), what it rests on, and the aligned scan.

    Raises:
        MedrlError: As :meth:`Aligner.load` and :meth:`Aligner.align`.
    """
    aligner = Aligner.load(model, device=device)
    return aligner.align(scan, to=to, origin=origin, spacing=spacing, header=header)


def from_detection(
    detection: Detection,
    *,
    to: To = "acpc",
    origin: Origin = "AC",
    spacing: float | None = None,
    header: bool = False,
    began: float | None = None,
) -> Alignment:
    """The frame of a head whose points are known: found, or corrected by hand.

    Args:
        detection: With its scan; positions in the scan's world, RAS mm.
        to: ``acpc`` or ``mni``.
        origin: Of the AC-PC frame.
        spacing: Voxel size of the aligned scan, mm.
        header: Keep the voxels.
        began: When it began (``time.perf_counter``), if that was before.

    Raises:
        MedrlError: As :func:`medrl.alignment.frames.fit`.
    """
    start = time.perf_counter()
    there = [lm for lm in detection.landmarks if lm.status != "absent"]
    points = {lm.name: lm.position_world for lm in there}
    weights = {
        lm.name: 1.0 if math.isnan(lm.confidence) else max(lm.confidence, _LEAST_WEIGHT)
        for lm in there
    }
    found = fit(to, points, weights, origin=origin)
    took = time.perf_counter() - (start if began is None else began)
    seconds = took + (detection.seconds if began is None else 0.0)
    return Alignment(to, found.transform_world, found, detection, seconds, origin, spacing, header)


def _left_out(alignment: Alignment) -> list[str]:
    """What did not go into the affine transform, in a line."""
    out = [n for n in alignment.fit.residuals_mm if n not in alignment.fit.used]
    if alignment.to == "acpc" or not out:
        return []
    far = ", ".join(f"{name} ({alignment.fit.residuals_mm[name]:.0f} mm off)" for name in out)
    return [f"left out, as the others do not agree: {far}"]


def _grid_of(
    to: To, placed: MetaTensor, spacing: float | None
) -> tuple[Array, tuple[int, int, int]]:
    """Affine and shape of the grid for a scan that lies in its frame already."""
    affine = as_affine(placed.affine)
    if to == "mni":
        sizes = np.full(3, 1.0 if spacing is None else spacing)
        low, high = MNI_BOX[0] - 0.5, MNI_BOX[1] + 0.5
        first = low + sizes / 2
        counts = np.ceil((high - low) / sizes - 1e-6)
    else:
        own = spacing_of(affine)
        # Each axis takes the spacing of the scan's axis that lies nearest to it.
        nearest = np.abs(affine[:3, :3] / own).argmax(axis=1)
        sizes = own[nearest] if spacing is None else np.full(3, spacing)
        ends = np.array(placed.shape[1:]) - 0.5
        corners = apply_affine(affine, box_corners((-0.5,) * 3, ends))
        low, high = corners.min(axis=0), corners.max(axis=0)
        # Voxel centres are whole multiples, so that one lies in the origin.
        start = np.floor(low / sizes + 0.5 + 1e-6)
        counts = np.ceil(high / sizes - 0.5 - 1e-6) - start + 1
        first = start * sizes
    check_size(high - low, counts, float(sizes.min()))
    grid = np.diag([*sizes, 1.0])
    grid[:3, 3] = first
    i, j, k = (int(count) for count in counts)
    return grid, (i, j, k)
