"""What tracking agents leave: tracks, and the files that others read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medrl.errors import MedrlError
from medrl.files import atomic_path
from medrl.tracking.objects.detections import Detections, Floats, Ints
from medrl.trajectory import Trajectory

MATCHED, COASTED = "matched", "coasted"


@dataclass(frozen=True, eq=False)
class Tracks:
    """Objects followed through a film: M rows, one an object and frame, sorted by both.

    Attributes:
        frame: (M,) int64, from 0.
        track: (M,) int64, from 1.
        box: (M, 2, 3) float64, voxel coordinates of the outer faces.
        detection: (M,) int64, row of the detection matched, -1 where there was none.
        confidence: (M,) float64, 0 to 1, that this is the object of the row before; of coasted rows
            the smaller of those around the gap.
        label: (M,) int64, value of the detection in its label image, 0 where there is none.
        parent: By track, its mother; tracks without one are left out.
        length: Frames of the film.
        detections: What was matched.
        trajectory: What the agents did.
        warnings: Each a sentence.
        seconds: It took.
    """

    frame: Ints
    track: Ints
    box: Floats
    detection: Ints
    confidence: Floats
    label: Ints
    parent: Mapping[int, int] = field(default_factory=dict)
    length: int = 0
    detections: Detections | None = None
    trajectory: Trajectory | None = None
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0

    def __len__(self) -> int:
        """M."""
        return len(self.frame)

    @property
    def ids(self) -> Ints:
        """The tracks there are."""
        return np.unique(self.track)

    @property
    def status(self) -> NDArray[np.str_]:
        """(M,), "matched" or "coasted"."""
        return np.where(self.detection >= 0, MATCHED, COASTED)

    def spans(self) -> NDArray[np.int64]:
        """(number of tracks, 4): track, first frame, last frame, mother or 0."""
        return np.array(
            [
                [
                    one,
                    self.frame[self.track == one].min(),
                    self.frame[self.track == one].max(),
                    self.parent.get(int(one), 0),
                ]
                for one in self.ids
            ],
            dtype=np.int64,
        ).reshape(-1, 4)

    def write_mot(self, path: str | os.PathLike[str]) -> None:
        """Write CSV as in the Multiple Object Tracking Challenge.

        Columns frame, id, left, top, width, height, confidence, -1, -1, -1; frames and pixels from
        1. Volumes get front and depth in place of the last two numbers.

        Raises:
            MedrlError: If the file cannot be written.
        """
        low, side = self.box[:, 0] + 1.5, self.box[:, 1] - self.box[:, 0]
        deep = bool((side[:, 2] > 1).any() or (self.box[:, 0, 2] != -0.5).any())
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            for n in range(len(self)):
                end = [f"{low[n, 2]:.2f}", f"{side[n, 2]:.2f}"] if deep else ["-1", "-1"]
                flat = [f"{value:.2f}" for value in (*low[n, :2], *side[n, :2])]
                row = [str(self.frame[n] + 1), str(self.track[n]), *flat]
                file.write(",".join([*row, f"{self.confidence[n]:.3f}", "-1", *end]) + "\n")

    def write_ctc(
        self,
        folder: str | os.PathLike[str],
        *,
        labels: NDArray[np.integer] | None = None,
        shape: tuple[int, int, int] | None = None,
        truth: bool = False,
    ) -> None:
        """Write what the Cell Tracking Challenge takes: ``res_track.txt`` and masks.

        Lines are L B E P: track, first and last frame, mother or 0. Masks are TIFF, (K,) J, I.

        Args:
            folder: Made if missing.
            labels: (T, I, J, K), the label images that the detections came from. Coasted boxes are
                filled as ellipsoids where nothing else is.
            shape: (I, J, K) where there are no label images: all boxes become ellipsoids.
            truth: Name the files ``man_track.txt`` and ``man_trackTTT.tif``.

        Raises:
            MedrlError: If a file cannot be written.
        """
        out = Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        with atomic_path(out / ("man_track.txt" if truth else "res_track.txt")) as temporary:
            lines = [" ".join(str(value) for value in row) for row in self.spans()]
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        if labels is None and shape is None:
            return
        masks = self.masks(labels=labels, shape=shape)
        digits = max(3, len(str(len(masks) - 1)))
        for number, mask in enumerate(masks):
            name = f"{'man_track' if truth else 'mask'}{number:0{digits}d}.tif"
            with atomic_path(out / name) as temporary:
                _write_tiff(temporary, mask)

    def masks(
        self,
        *,
        labels: NDArray[np.integer] | None = None,
        shape: tuple[int, int, int] | None = None,
    ) -> NDArray[np.uint16]:
        """Label images (T, I, J, K) whose values are the tracks.

        Args:
            labels: (T, I, J, K), label images of the detections.
            shape: (I, J, K) where there are none: boxes become ellipsoids.

        Raises:
            MedrlError: If neither is given.
        """
        if labels is not None:
            shape = (labels.shape[1], labels.shape[2], labels.shape[3])
        if shape is None:
            raise MedrlError("masks need label images, or the size of the film")
        out = np.zeros((self.length, *shape), np.uint16)
        for n in np.argsort(self.detection < 0, kind="stable"):
            frame, track = self.frame[n], self.track[n]
            if labels is not None and self.label[n] > 0:
                out[frame][labels[frame] == self.label[n]] = track
            else:
                _fill(out[frame], self.box[n], int(track))
        return out


def _fill(mask: NDArray[np.uint16], box: Floats, value: int) -> None:
    """Fill the ellipsoid in a box where the mask is empty."""
    low = np.maximum(np.ceil(box[0]), 0).astype(int)
    high = np.minimum(np.floor(box[1]) + 1, mask.shape).astype(int)
    if (high <= low).any():
        return
    middle, half = box.mean(axis=0), np.maximum((box[1] - box[0]) / 2, 0.5)
    axes = [
        ((np.arange(a, b) - m) / h) ** 2 for a, b, m, h in zip(low, high, middle, half, strict=True)
    ]
    inside = axes[0][:, None, None] + axes[1][:, None] + axes[2] <= 1
    part = mask[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    part[inside & (part == 0)] = value


def _write_tiff(path: Path, mask: NDArray[np.uint16]) -> None:
    """(I, J, K) as a TIFF of K pages, rows along J."""
    from PIL import Image

    pages = [Image.fromarray(np.ascontiguousarray(page.T)) for page in np.moveaxis(mask, 2, 0)]
    pages[0].save(path, format="TIFF", save_all=True, append_images=pages[1:])
