"""Which way a scan is turned, asked of the agents' own networks: they need no template of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.landmark.network import LandmarkNetwork
from medrl.volume.pose import Pose, centre_of_mass
from medrl.volume.procrustes import fit_many
from medrl.volume.pyramid import Pyramid
from medrl.volume.rotations import spread_rotations

Array = NDArray[np.float64]

#: Rotations that are looked at. Of 128 the nearest is 24 degrees away on average and 46 at most;
#: networks have seen scans turned by up to 35 about each axis.
_ROTATIONS = 128
#: How many go on after a look, and looks.
_KEEP = (16, 6)
#: How much larger or smaller than usual what a scan shows may be.
_SIZES = (0.75, 1.3)
#: A scan lies as was thought if its landmarks are seen this near to where they are expected, on
#: average (voxels of the second coarsest scale).
_RIGHT = 1.2
_CHUNK = 64


class _Guesses(NamedTuple):
    """N ways in which a scan may lie.

    Attributes:
        turn: (N, 3, 3), from the world to the straight one.
        middle: (N, 3) RAS mm, where the middle of the expected landmarks is.
        size: (N,), of what is seen against the usual.
    """

    turn: Tensor
    middle: Tensor
    size: Tensor

    def take(self, rows: Tensor) -> _Guesses:
        return _Guesses(*(part[rows] for part in self))


class Turning:
    """Lays scans straight by what networks see in them.

    The network of the coarsest scale is shown the middle of a scan, turned in many ways, and says
    where it sees the landmarks; the rigid fit of the expected ones to those is the next guess. The
    best after three looks are judged by the network of the next finer scale: how far it sees each
    landmark from where it must be then.
    """

    def __init__(
        self,
        networks: Sequence[LandmarkNetwork],
        spacings: Sequence[float],
        window: int,
        expected: Array,
    ) -> None:
        """Be ready.

        Args:
            networks: One per scale, finest first, in evaluation mode.
            spacings: Voxel sizes of the scales, mm.
            window: Side of the windows, voxels.
            expected: (K, 3), where landmarks are in the straight world, mm.
        """
        self._networks = networks[-1], networks[max(0, len(networks) - 2)]
        self._level = len(networks) - 1, max(0, len(networks) - 2)
        self._spacing = tuple(spacings[level] for level in self._level)
        self._window = window
        self._origin = expected.mean(axis=0)
        self._expected = torch.from_numpy(expected - self._origin).float()

    @torch.inference_mode()
    def find(self, pyramid: Pyramid) -> tuple[Pose | None, bool]:
        """How a scan is turned.

        Args:
            pyramid: Of the scan as it lies, on the networks' device.

        Returns:
            The pose, None if none looks better than the scan as it lies; and whether that is sure.
            A part of a head may look like another one that is turned: what agents find in either
            pose has to tell.
        """
        look = _Look(pyramid, self._level, self._window, self._spacing)
        mass = centre_of_mass(look.volumes[0].cpu(), pyramid.affines[-1])
        middle = torch.from_numpy(mass).float()
        given = _Guesses(torch.eye(3)[None], middle[None], torch.ones(1))
        for _ in range(len(_KEEP) + 1):
            given, _ = self._looked(look, given)
        off = self._judged(look, given)
        if float(off) <= _RIGHT:
            return self._pose(given), True
        turns = spread_rotations(_ROTATIONS).float()
        found = _Guesses(turns, middle.expand(len(turns), 3), torch.ones(len(turns)))
        for keep in (*_KEEP, None):
            found, unlikely = self._looked(look, found)
            if keep is not None:
                found = found.take(unlikely.topk(keep, largest=False).indices)
        judged = self._judged(look, found)
        best = judged.argmin()[None]
        if float(judged[best]) < float(off):
            return self._pose(found.take(best)), False
        return None, True

    def _looked(self, look: _Look, guesses: _Guesses) -> tuple[_Guesses, Tensor]:
        """Better guesses, and how unlikely each is, (N,)."""
        step = self._spacing[0]
        seen = look.windows(0, guesses.turn, guesses.middle)
        prediction = self._networks[0](seen)
        offset, log_scale = prediction.offset.float().cpu(), prediction.log_scale.float().cpu()
        weight = torch.exp(-log_scale)
        turn, shift, size = fit_many(offset * step, self._expected, weight, sizes=_SIZES)
        there = torch.einsum("nij,nkj->nki", turn, offset * step) + shift[:, None]
        away = (there - self._expected * size[:, None, None]).abs().sum(dim=-1) / step
        turned = turn @ guesses.turn
        middle = guesses.middle - torch.einsum("nji,nj->ni", turned, shift)
        # Laplace errors of the scale that the network itself expects.
        return _Guesses(turned, middle, size), (away * weight + 3 * log_scale).mean(dim=1)

    def _judged(self, look: _Look, guesses: _Guesses) -> Tensor:
        """How far off landmarks are seen from where they must be, (N,), voxels of the finer scale.

        Infinite where one is outside the field of view.
        """
        count = len(self._expected)
        away = self._expected * guesses.size[:, None, None]
        place = guesses.middle[:, None] + torch.einsum("nji,nkj->nki", guesses.turn, away)
        flat = place.flatten(0, 1)
        turn = guesses.turn.repeat_interleave(count, dim=0)
        offsets = [
            self._networks[1](look.windows(1, turn[rows], flat[rows])).offset
            for rows in torch.arange(len(flat)).split(_CHUNK)
        ]
        offset = torch.cat(offsets).float().cpu()
        own = torch.arange(len(flat)) % count
        off = offset[torch.arange(len(flat)), own].norm(dim=-1).view(-1, count)
        there = look.inside(1, flat).view(-1, count).all(dim=1)
        return torch.where(there, off.mean(dim=1), torch.inf)

    def _pose(self, guess: _Guesses) -> Pose:
        matrix = np.eye(4)
        # The nearest rotation: sums in single precision have made it a little less than one.
        u, _, vt = np.linalg.svd(guess.turn[0].double().numpy())
        matrix[:3, :3] = u @ vt
        matrix[:3, 3] = self._origin - matrix[:3, :3] @ guess.middle[0].double().numpy()
        return Pose(matrix)


class _Look:
    """Windows of a scan, turned in any way."""

    def __init__(
        self, pyramid: Pyramid, levels: Sequence[int], window: int, spacings: Sequence[float]
    ) -> None:
        self.volumes = [pyramid.levels[level][0].float() for level in levels]
        inverse = [np.linalg.inv(pyramid.affines[level]) for level in levels]
        self._to_voxel = [torch.from_numpy(matrix).float() for matrix in inverse]
        side = torch.arange(window) - window // 2
        self._grid = torch.cartesian_prod(side, side, side).float()
        self._shape = (window,) * 3
        self._spacing = spacings

    def windows(self, which: int, turn: Tensor, middle: Tensor) -> Tensor:
        """(N, 1, s, s, s) around places (N, 3) RAS mm, along the axes of turned worlds."""
        volume = self.volumes[which]
        world = torch.einsum("nji,pj->npi", turn, self._grid * self._spacing[which])
        voxel = self._voxel(which, world + middle[:, None])
        where = (2 * voxel + 1) / torch.tensor(volume.shape) - 1
        seen = F.grid_sample(
            volume[None, None],
            where.flip(-1)[None, :, :, None].to(volume.device),
            align_corners=False,
        )
        return seen.view(len(turn), 1, *self._shape)

    def inside(self, which: int, world: Tensor) -> Tensor:
        """Which places (N, 3) RAS mm are in the field of view."""
        voxel = self._voxel(which, world)
        return ((voxel >= 0) & (voxel <= torch.tensor(self.volumes[which].shape) - 1)).all(dim=-1)

    def _voxel(self, which: int, world: Tensor) -> Tensor:
        matrix = self._to_voxel[which]
        return world @ matrix[:3, :3].T + matrix[:3, 3]
