"""Films of flies, fish and cell nuclei with the identity of everything in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medrl.errors import MedrlError
from medrl.tracking.objects.detections import Detections, read_detections, with_tracks
from medrl_datasets.card import Card
from medrl_datasets.local import DataSet

#: Width of a fish of which only a point is known, in pixels.
FISH = 14.0

CARD = Card(
    name="tracking_video",
    title="Four films: two flies, three flies, ten zebrafish, about twenty cell nuclei",
    modality="Grey films, light and fluorescence microscopy",
    grid="320 x 320, 928 x 928 and 608 x 592 pixels; 128, 128, 32 and 11 frames",
    source="Test data of the programs dreem and sleap-mot",
    home="https://github.com/talmolab/sleap-mot",
    licence="BSD-3-Clause",
    weights="yes",
    citation="dreem and sleap-mot, Talmo Lab, Salk Institute for Biological Studies",
    labels=(
        "tracks.csv: frame, track, centre and box of every object. Cells also as mask_*.png (value "
        "= track) and man_track.txt, in the form of the Cell Tracking Challenge"
    ),
    obtain=(
        "Copies of the films in the programs' test data; one folder a film with frames/ (or "
        "frame_*.png) and tracks.csv, and splits.csv"
    ),
    traps=(
        "Fish have one point each: give their boxes a size",
        "Boxes of flies lie around body points: their sizes change a lot as flies turn",
        "Some cells are missing in single frames, and their boxes are cut off at 31 pixels",
    ),
    holdout=("three_flies", "cells"),
)


class TrackingVideo(DataSet):
    """One folder a film."""

    card = CARD

    def files(self, root: Path, subject: str) -> dict[str, Path]:
        """Return the files of a film: its first frame, and its tracks."""
        folder = root / subject
        return {"image": frame_files(folder)[0], "tracks": folder / "tracks.csv"}


def frame_files(folder: Path) -> list[Path]:
    """The frames of a film, in order.

    Raises:
        MedrlError: If there are none.
    """
    found = sorted(folder.glob("frames/*.jpg")) or sorted(folder.glob("frame_*.png"))
    if not found:
        raise MedrlError(f"{folder}: there are no frames of a film")
    return found


def film(root: Path, subject: str) -> Tensor:
    """Read the frames of a film, (T, 1, I, J, 1) float32, grey values 0 to 255.

    Args:
        root: Folder of the local copy.
        subject: Name of the film.

    Raises:
        MedrlError: If a frame is missing or cannot be read.
    """
    try:
        frames = [
            np.asarray(Image.open(path).convert("L"), dtype=np.float32).T
            for path in frame_files(root / subject)
        ]
    except OSError as error:
        raise MedrlError(f"cannot read a frame of {subject}: {error}") from error
    return torch.from_numpy(np.stack(frames))[:, None, :, :, None]


def tracks(root: Path, subject: str) -> Detections:
    """Read every object of a film, with its identity; points get a width of :data:`FISH`.

    Args:
        root: Folder of the local copy.
        subject: Name of the film.

    Raises:
        MedrlError: If the table is missing or broken.
    """
    found = read_detections(root / subject / "tracks.csv", size=FISH)
    return with_tracks(found, found.track + 1 - found.track.min())


def masks(root: Path, subject: str) -> np.ndarray:
    """Read the label images of a film, (T, I, J, 1) int64, value = track; only cells have some.

    Raises:
        MedrlError: If there are none.
    """
    found = sorted((root / subject).glob("mask_*.png"))
    if not found:
        raise MedrlError(f"{subject} has no masks")
    return np.stack([np.asarray(Image.open(path)).T for path in found])[..., None].astype(np.int64)


DATASET = TrackingVideo()
