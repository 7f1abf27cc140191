"""The images that a model looks at, each with its units: which is which, and one grid for all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.volume.resample import resample_isotropic, resample_onto
from medrl.volume.space import as_affine
from medrl.volume.validation import check_volume, in_hounsfield

Intensity = Literal["relative", "hounsfield", "suv"]
#: No body has this standardized uptake value in one voxel of a hundred.
_IMPOSSIBLE_SUV = 100.0


@dataclass(frozen=True)
class Channel:
    """One image that a model looks at.

    Attributes:
        name: What it is called, such as ``CT``.
        intensity: What its values mean: ``relative`` to the contrast of the image (MR),
            ``hounsfield`` (seen in a window for soft tissue), or ``suv`` (logarithm; PET).
    """

    name: str
    intensity: Intensity = "relative"


def parse_channel(text: str) -> Channel:
    """Read ``NAME`` or ``NAME:INTENSITY``."""
    name, _, intensity = text.partition(":")
    known = get_args(Intensity)
    if not name or (intensity and intensity not in known):
        raise MedrlError(f"{text!r} is not NAME or NAME:INTENSITY with one of {', '.join(known)}")
    return Channel(name, cast(Intensity, intensity or "relative"))


#: Least and greatest value of :func:`in_units`.
VALUES = {"hounsfield": (-2.0, 2.0), "suv": (-0.5, math.log1p(50.0) - 0.5)}


def in_units(volume: Tensor, channel: Channel) -> Tensor | None:
    """Values that have a unit, brought to about -1 to 1; None if they have none."""
    if channel.intensity == "hounsfield":
        return ((volume - 40.0) / 150.0).clamp(-2.0, 2.0)
    if channel.intensity == "suv":
        return volume.clamp(0.0, 50.0).log1p() - 0.5
    return None


def on_one_grid(
    images: Mapping[str, MetaTensor], channels: Sequence[Channel], spacing: float
) -> tuple[dict[str, Tensor], NDArray[np.float64]]:
    """Bring the images of one patient onto one isotropic grid.

    The grid covers the first image given; the others are resampled onto it.

    Args:
        images: By channel name, each (1, I, J, K) with its affine. Channels may be missing.
        channels: What the model looks at.
        spacing: Voxel size, mm.

    Returns:
        The images (I, J, K) by name, not normalised, and the affine (4, 4) of the grid.

    Raises:
        MedrlError: If there is no image, one that the model does not know, or one of several
            channels.
    """
    names = [channel.name for channel in channels]
    unknown = sorted(set(images) - set(names))
    if not images or unknown:
        raise MedrlError(f"the model looks at {' and '.join(names)}, not at {unknown or 'nothing'}")
    for name, image in images.items():
        if image.shape[0] != 1:
            raise MedrlError(f"the {name} image has {image.shape[0]} channels; give one of them")
    darkest = {name: float(image.as_tensor().min()) for name, image in images.items()}
    main = next(iter(images))
    first = resample_isotropic(images[main], spacing=spacing, background=darkest[main])
    affine, shape = as_affine(first.affine), tuple(first.shape[1:])
    volumes = {main: first.as_tensor()[0]}
    for name in images.keys() - {main}:
        onto = resample_onto(images[name], affine=affine, shape=shape, background=darkest[name])
        volumes[name] = onto.as_tensor()[0]
    return volumes, affine


def stacked(
    images: Mapping[str, MetaTensor], channels: Sequence[Channel], spacing: float
) -> MetaTensor:
    """All images of a patient as the channels of one scan, on the isotropic grid of the first.

    Args:
        images: By channel name, each (1, I, J, K) with its affine.
        channels: What the model looks at, in its order.
        spacing: Voxel size, mm.

    Returns:
        (C, I, J, K), not normalised.

    Raises:
        MedrlError: If one is missing, or as :func:`on_one_grid` says.
    """
    missing = [channel.name for channel in channels if channel.name not in images]
    if missing and images:
        raise MedrlError(f"the model needs a {' and a '.join(missing)} image, too")
    volumes, affine = on_one_grid(images, channels, spacing)
    volume = torch.stack([volumes[channel.name] for channel in channels])
    return MetaTensor(volume, affine=torch.from_numpy(affine))


def name_images(
    scan: MetaTensor | Mapping[str, MetaTensor],
    channels: Sequence[Channel],
    *,
    channel: str | None = None,
) -> dict[str, MetaTensor]:
    """Check a patient's images and say which channel each is.

    Args:
        scan: One image (1, I, J, K), or images by channel name.
        channels: What the model looks at.
        channel: What a single image is. If left out, it is the model's only channel, or a CT if
            its values are Hounsfield units, or the only other one if they are not.

    Returns:
        Images by channel name, in the order given.

    Raises:
        MedrlError: If the model does not know a channel, an image cannot be what it is said to
            be, or it is not clear which a single image is.
    """
    if not isinstance(scan, Mapping):
        scan = {channel or _guess(scan, channels): scan}
    known = {c.name: c for c in channels}
    unknown = [name for name in scan if name not in known]
    if unknown or not scan:
        raise MedrlError(
            f"the model looks at {' and '.join(known)}, not at {', '.join(unknown) or 'nothing'}"
        )
    for name, image in scan.items():
        try:
            check_volume(image)
            _check_values(image, known[name])
        except MedrlError as error:
            raise MedrlError(f"{name}: {error}" if len(known) > 1 else str(error)) from None
    return dict(scan)


def _guess(scan: MetaTensor, channels: Sequence[Channel]) -> str:
    if len(channels) == 1:
        return channels[0].name
    ct = scan.numel() > 0 and in_hounsfield(scan)
    fitting = [c.name for c in channels if (c.intensity == "hounsfield") == ct]
    if len(fitting) == 1:
        return fitting[0]
    names = " and ".join(c.name for c in channels)
    raise MedrlError(f"the model looks at {names}: say which of them the scan is")


def _check_values(image: MetaTensor, channel: Channel) -> None:
    """Refuse units that the channel cannot have."""
    if channel.intensity != "hounsfield" and in_hounsfield(image):
        raise MedrlError(
            f"this looks like a CT (values in Hounsfield units), but the model takes it for "
            f"{channel.name}"
        )
    if channel.intensity == "suv":
        values = image.as_tensor().flatten()
        sample = values[:: max(1, values.numel() // 100_000)].float()
        if float(torch.quantile(sample, 0.99)) > _IMPOSSIBLE_SUV:
            raise MedrlError(
                f"the values of the {channel.name} image are too high for standardized uptake "
                "values: convert them to SUV first"
            )
