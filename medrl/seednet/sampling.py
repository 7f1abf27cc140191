"""Training windows: boxes of patients, turned, scaled, shifted and seen by another scanner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from medrl.agents import Rows
from medrl.errors import MedrlError
from medrl.rl.pool import Shuffle
from medrl.seednet.data import LabelledGrid
from medrl.seednet.network import MULTIPLE
from medrl.seednet.windows import normalize
from medrl.volume.augment import bias_field, rotation_matrix, thicken_slices
from medrl.volume.channels import Channel
from medrl.walker.segmenter import FOREGROUND, NONE


@dataclass(frozen=True)
class Sampling:
    """How training windows are drawn.

    Attributes:
        window: Grid of a window, multiples of 8.
        shift: Largest distance of the window's centre from the object's, voxels along each axis.
        rotation_deg: Largest rotation about each axis.
        scaling: Largest relative change of size, of all axes together and of each by itself.
        flips: Mirror left and right in half of the windows.
        scanner_probability: Share of windows that each scanner effect is applied to.
        bias: Largest log amplitude of the smooth multiplicative field (``relative`` channels).
        gain: Largest log change of the contrast.
        noise: Largest standard deviation of the noise, in normalised units.
        thick_slice: Largest slice thickness, in voxels, along one axis.
        drop_channel: Share of windows that miss one channel at random, where there are several.
    """

    window: tuple[int, int, int] = (40, 56, 40)
    shift: float = 10.0
    rotation_deg: float = 20.0
    scaling: float = 0.15
    flips: bool = True
    scanner_probability: float = 0.35
    bias: float = 0.3
    gain: float = 0.3
    noise: float = 0.15
    thick_slice: float = 2.0
    drop_channel: float = 0.6

    def __post_init__(self) -> None:
        """Refuse windows that the network cannot halve."""
        if any(side < MULTIPLE or side % MULTIPLE for side in self.window):
            raise MedrlError(f"a training window's sides must be multiples of {MULTIPLE}")


@dataclass(frozen=True, eq=False)
class Sample(Rows):
    """N training windows of one grid.

    Attributes:
        image: (N, C, I, J, K) float32, normalised.
        truth: (N, I, J, K) bool, the target of each window.
        target: (N,) int64, which target that is.
        click: (N, I, J, K) int8, seeds map with one foreground voxel inside the target.
    """

    image: Tensor
    truth: Tensor
    target: Tensor
    click: Tensor


class Sampler:
    """Draws windows from labelled patients."""

    def __init__(
        self, cases: Sequence[LabelledGrid], settings: Sampling, generator: Generator
    ) -> None:
        """Normalise the patients once.

        Args:
            cases: Labelled patients of one model.
            settings: How to draw.
            generator: Source of all randomness.
        """
        self._settings = settings
        self._generator = generator
        self._channels = cases[0].grid.channels
        self._images: list[Tensor] = []
        self._truth: list[Tensor] = []
        for case in cases:
            shape = case.grid.shape
            volumes = [
                torch.zeros(shape) if volume is None else normalize(volume, channel)
                for volume, channel in zip(case.grid.volumes, self._channels, strict=True)
            ]
            self._images.append(torch.stack(volumes))
            self._truth.append(case.truth)
        self._order = Shuffle(len(cases), generator=generator)

    @property
    def window(self) -> tuple[int, int, int]:
        """The grid of the windows that are drawn."""
        return self._settings.window

    def state_dict(self) -> dict[str, Any]:
        """Which patients come next."""
        return self._order.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self._order.load_state_dict(state)

    def draw(self, count: int, *, augment: bool = True) -> Sample:
        """Draw windows in each of which some of its target is to be seen.

        Args:
            count: Number of windows N.
            augment: Turn, scale and disturb; otherwise windows are only shifted.
        """
        parts = [self._draw_one(augment=augment) for _ in range(count)]
        image, truth, target, click = zip(*parts, strict=True)
        return Sample(
            torch.stack(image), torch.stack(truth), torch.tensor(target), torch.stack(click)
        )

    def _draw_one(self, *, augment: bool) -> tuple[Tensor, Tensor, int, Tensor]:
        while True:
            index = self._order.draw()
            present = self._truth[index].flatten(1).any(dim=1).nonzero()[:, 0]
            # The first target, usually the whole of which the others are parts, as often as those.
            target = int(present[0]) if self._chance(0.5) else int(present[self._pick(present)])
            image, truth = self._cut(self._images[index], self._truth[index][target], augment)
            if truth.any():
                break
        image = self._drop(image)
        if augment:
            image = torch.stack(
                [self._disturb(part, c) for part, c in zip(image, self._channels, strict=True)]
            )
        click = torch.full(truth.shape, NONE, dtype=torch.int8)
        inside = truth.nonzero()
        click[tuple(inside[self._pick(inside)])] = FOREGROUND
        return image, truth, target, click

    def _cut(self, image: Tensor, truth: Tensor, augment: bool) -> tuple[Tensor, Tensor]:
        """A window of (C, I, J, K) and (I, J, K) around the object, in a random pose."""
        s, size = self._settings, torch.tensor(truth.shape, dtype=torch.float64)
        where = truth.nonzero().double()
        middle = (where.amin(dim=0) + where.amax(dim=0)) / 2
        matrix = torch.eye(3, dtype=torch.float64)
        if augment:
            angles = self._signed(3) * math.radians(s.rotation_deg)
            scales = torch.exp(s.scaling * (self._signed(1) + 0.5 * self._signed(3)))
            matrix = rotation_matrix(angles) @ torch.diag(scales)
            if s.flips and self._chance(0.5):
                matrix[:, 0] *= -1
        center = middle + s.shift * self._signed(3)
        if not augment:
            center = center.round() + (torch.tensor(s.window) % 2 == 0) * 0.5
        # From window voxels to scan voxels, in grid_sample's reversed units from -1 to 1.
        extent = torch.tensor(s.window, dtype=torch.float64)
        scale = extent[None, :] / size[:, None]
        offset = (2 * center + 1) / size - 1
        theta = torch.cat([(matrix * scale), offset[:, None]], dim=1)
        theta = torch.cat([theta[:, :3].flip(0, 1), theta[:, 3:].flip(0)], dim=1).float()
        grid = F.affine_grid(theta[None], [1, 1, *s.window], align_corners=False)
        # Outside the scan a window is empty, or as dark as the scan's darkest voxel.
        fill = image.amin(dim=(1, 2, 3), keepdim=True) * float(self._chance(0.5))
        seen = F.grid_sample((image - fill)[None], grid, align_corners=False)[0] + fill
        mask = F.grid_sample(truth[None, None].float(), grid, align_corners=False)
        return seen, mask[0, 0] > 0.5

    def _drop(self, image: Tensor) -> Tensor:
        """One channel less (C, I, J, K), if another is left."""
        present = image.flatten(1).any(dim=1).nonzero()[:, 0]
        if len(present) > 1 and self._chance(self._settings.drop_channel):
            image = image.clone()
            image[present[self._pick(present)]] = 0
        return image

    def _disturb(self, image: Tensor, channel: Channel) -> Tensor:
        """Another scanner's image (I, J, K) of the same thing; a missing channel stays 0."""
        s = self._settings
        if not image.any():
            return image
        if self._chance(s.scanner_probability):
            image = thicken_slices(image[None], s.thick_slice, self._generator)[0]
        if self._chance(s.scanner_probability):
            image = image * math.exp(s.gain * float(self._signed(1)))
        if channel.intensity != "hounsfield" and self._chance(s.scanner_probability):
            image = image + s.gain * float(self._signed(1))
        if channel.intensity == "relative" and self._chance(s.scanner_probability):
            # Darkest tissue is near -1: the field multiplies intensities that start at 0.
            image = (image + 1) * bias_field(image.shape, s.bias, self._generator) - 1
        if self._chance(s.scanner_probability):
            sigma = s.noise * float(torch.rand((), generator=self._generator))
            image = image + sigma * torch.empty_like(image).normal_(generator=self._generator)
        return image

    def _chance(self, probability: float) -> bool:
        return bool(torch.rand((), generator=self._generator) < probability)

    def _pick(self, rows: Tensor) -> int:
        return int(torch.randint(len(rows), (), generator=self._generator))

    def _signed(self, count: int) -> Tensor:
        return 2 * torch.rand(count, generator=self._generator, dtype=torch.float64) - 1
