"""Which of a model's channels an image is, and whether it can be that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.seednet.windows import Channel
from medrl.volume.validation import check_volume, in_hounsfield

#: No body has this standardized uptake value in one voxel of a hundred.
_IMPOSSIBLE_SUV = 100.0


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
