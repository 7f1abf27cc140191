"""Which way a scan is turned: found by what straight scans look like, whatever way that is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from medrl.volume.resample import resample_isotropic, resample_onto, smoothing_kernel
from medrl.volume.rotations import rotation, spread_rotations
from medrl.volume.space import apply_affine, as_affine

Array = NDArray[np.float64]
Normalize = Callable[[MetaTensor], MetaTensor]

#: Side of the template in voxels, and of the coarse look at it every so many of them.
_SIDE, _COARSE = 36, 3
#: Smoothing of template and scan, voxels of the template.
_SIGMA = 1.5
#: Rotations that are looked at, those of them that are improved, and that once more.
_ROTATIONS, _BETTER, _BEST = 2000, 24, 3
#: Improvement on the coarse and on the fine look: largest step in degrees and in voxels, and steps.
_CLIMBS = ((2.5, 0.2, 25), (1.2, 0.1, 20))
#: Share of training scans that fit less well than one that is surely straight.
_SURE = 0.9
#: How far from its centre of mass the middle of a scan is looked for, voxels of the template.
_FAR = 12
#: With less than this share of what straight scans show, turned scans must fit better by so much.
_WHOLE, _CLEARLY = 0.85, 0.1
#: Share of what is in a scan that the template holds, and voxels looked at to tell where it is.
_CONTENT, _SAMPLES = 0.97, 200_000


@dataclass(frozen=True, eq=False)
class Pose:
    """How to lay a scan straight.

    Attributes:
        matrix: (4, 4) rigid, from the scan's world to the straight one (RAS mm).
        score: How well the scan then fits what straight ones look like, a correlation.
        share: How much of what straight ones show is in the scan.
    """

    matrix: Array
    score: float = math.nan
    share: float = math.nan

    @property
    def turn_deg(self) -> float:
        """The angle by which it turns the scan."""
        trace = float(np.trace(self.matrix[:3, :3]))
        return float(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))))

    def straightened(self, scan: MetaTensor) -> MetaTensor:
        """The scan in the straight world: the same voxels under another affine."""
        affine = torch.from_numpy(self.matrix @ as_affine(scan.affine))
        return MetaTensor(scan.as_tensor(), affine=affine)


@dataclass(frozen=True, eq=False)
class PoseTemplate:
    """The mean of straight scans, blurred.

    Attributes:
        volume: (S, S, S) float32, normalised.
        affine: (4, 4), its voxels to the straight world (RAS mm).
        usual: A scan that fits so well as it was given need not be turned: score of the best tenth
            of those that this is the mean of.
    """

    volume: Tensor
    affine: Array
    usual: float = 1.0

    @staticmethod
    def fit(scans: Iterable[MetaTensor], normalize: Normalize) -> PoseTemplate:
        """Take the mean of straight scans.

        Args:
            scans: Each (1, I, J, K), whose affine leads to the straight world. Gone through once.
            normalize: What brings intensities to a common scale.
        """
        affine = np.eye(4)
        seen: list[Tensor] = []
        for scan in scans:
            if not seen:
                affine = _grid_around(scan, normalize)
            own = resample_onto(scan, affine=affine, shape=(_SIDE,) * 3, background=_air(scan))
            seen.append(normalize(own).as_tensor()[0])
        mean = _blurred(torch.stack(seen).mean(dim=0))
        every = torch.stack([_blurred(one).flatten() for one in seen])
        usual = torch.corrcoef(torch.cat([mean.flatten()[None], every]))[0, 1:].quantile(_SURE)
        return PoseTemplate(mean, affine, float(usual))

    def find(self, scan: MetaTensor, normalize: Normalize) -> Pose:
        """Look for how a scan is turned.

        First as it was given, wherever it lies. If that fits less well than is usual, in many
        rotations about its centre of mass as well. The best are improved by the gradient of the
        fit. A part of a scan that fits is easily found in another: where much of what straight
        scans show is missing, turned ones must fit clearly better than the one that was given.

        Args:
            scan: (1, I, J, K) with a voxel-to-world affine (RAS mm).
            normalize: As of :meth:`fit`.

        Raises:
            MedrlError: If the scan is constant or its geometry unusable.
        """
        look = _Look(self, scan, normalize)
        places = look.middle + look.spacing * _shifts()
        given = look.best(torch.eye(3).expand(len(places), 3, 3), places, keep=_BEST)
        if given.score >= self.usual:
            return given
        turns = spread_rotations(_ROTATIONS).float()
        turned = look.best(turns, look.middle.expand(len(turns), 3), keep=_BETTER)
        whole = min(given.share, turned.share) > _WHOLE
        return turned if turned.score > given.score + (0.0 if whole else _CLEARLY) else given

    def tensors(self) -> dict[str, Tensor]:
        """What to store of it."""
        return {
            "pose.volume": self.volume.half(),
            "pose.affine": torch.from_numpy(self.affine),
            "pose.usual": torch.tensor([self.usual]),
        }

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> PoseTemplate | None:
        """Read what :meth:`tensors` gave; None if there is none."""
        if "pose.volume" not in tensors:
            return None
        volume, affine, usual = (tensors[f"pose.{name}"] for name in ("volume", "affine", "usual"))
        return PoseTemplate(volume.float(), affine.double().numpy(), float(usual[0]))


class _Look:
    """A scan, seen as coarsely as the template, and how well the template fits it."""

    def __init__(self, template: PoseTemplate, scan: MetaTensor, normalize: Normalize) -> None:
        self.spacing = float(template.affine[0, 0])
        coarse = normalize(resample_isotropic(scan, spacing=self.spacing, background=_air(scan)))
        volume = coarse.as_tensor()[0].float().cpu()
        self.volume = _blurred(volume)
        affine = as_affine(coarse.affine)
        self._to_voxel = torch.from_numpy(np.linalg.inv(affine)).float()
        self.middle = torch.from_numpy(centre_of_mass(volume, affine)).float()
        self._template_middle = centre_of_mass(template.volume, template.affine)
        self._levels = []
        for step in (_COARSE, 1):
            axis = np.arange(0, _SIDE, step)
            points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
            away = apply_affine(template.affine, points) - self._template_middle
            # A ball looks the same from everywhere.
            ball = np.linalg.norm(away, axis=1) < _SIDE / 2 * self.spacing
            i, j, k = torch.from_numpy(points[ball]).long().unbind(dim=1)
            self._levels.append((torch.from_numpy(away[ball]).float(), template.volume[i, j, k]))

    def scores(
        self, turn: Tensor, place: Tensor, *, level: int, chunk: int = 100
    ) -> tuple[Tensor, Tensor]:
        """How the template fits what it lies on, by N turns and places.

        Returns:
            Correlations (N,), less where little of it was scanned, and how much was (N,).
        """
        points, expected = self._levels[level]
        size = torch.tensor(self.volume.shape)
        fits, shares = [], []
        for turns, places in zip(turn.split(chunk), place.split(chunk), strict=True):
            world = torch.einsum("nij,pj->npi", turns, points) + places[:, None]
            voxel = world @ self._to_voxel[:3, :3].T + self._to_voxel[:3, 3]
            where = (2 * voxel + 1) / size - 1
            seen = F.grid_sample(
                self.volume[None, None],
                where.flip(-1).view(1, 1, *where.shape[:2], 3),
                align_corners=False,
            )[0, 0, 0]
            # What was not scanned says nothing, but half of what there is must have been.
            known = (where.abs() <= 1).all(dim=-1).float()
            count = known.sum(dim=1, keepdim=True).clamp(min=1)
            means = [(v * known).sum(dim=1, keepdim=True) / count for v in (seen, expected[None])]
            a, b = (seen - means[0]) * known, (expected - means[1]) * known
            fit = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-6)
            share = (known @ expected) / expected.sum()
            fits.append(fit * (2 * share).clamp(max=1.0))
            shares.append(share)
        return torch.cat(fits), torch.cat(shares)

    def best(self, turn: Tensor, place: Tensor, *, keep: int) -> Pose:
        """The best of N turns and places, of which so many are improved."""
        chosen = self.scores(turn, place, level=0)[0].topk(keep).indices
        found = self.improved(turn[chosen], place[chosen], level=0, keep=min(keep, _BEST))
        return self.pose(*self.improved(*found, level=1, keep=1))

    def improved(
        self, turn: Tensor, place: Tensor, *, level: int, keep: int
    ) -> tuple[Tensor, Tensor]:
        """Climb from N turns and places by gradients (Kingma and Ba 2015); the best of them."""
        deg, voxels, steps = _CLIMBS[level]
        with torch.enable_grad():
            angle = torch.zeros((len(turn), 3), requires_grad=True)
            at = place.clone().requires_grad_(True)
            paces = ((angle, deg), (at, voxels * self.spacing))
            climber = torch.optim.Adam([{"params": [what], "lr": pace} for what, pace in paces])
            slower = torch.optim.lr_scheduler.LinearLR(climber, 1.0, 0.1, steps)
            for _ in range(steps):
                climber.zero_grad()
                fits, _ = self.scores(rotation(angle) @ turn, at, level=level)
                (-fits.sum()).backward()
                climber.step()
                slower.step()
        turn, place = (rotation(angle) @ turn).detach(), at.detach()
        best = self.scores(turn, place, level=level)[0].topk(keep).indices
        return turn[best], place[best]

    def pose(self, turn: Tensor, place: Tensor) -> Pose:
        """The way back, from where the scan lies to where the template does."""
        matrix = np.eye(4)
        # The nearest rotation: sums in single precision have made it a little less than one.
        u, _, vt = np.linalg.svd(turn[0].double().numpy().T)
        matrix[:3, :3] = u @ vt
        matrix[:3, 3] = self._template_middle - matrix[:3, :3] @ place[0].double().numpy()
        score, share = self.scores(turn, place, level=1)
        return Pose(matrix, float(score[0]), float(share[0]))


def _grid_around(scan: MetaTensor, normalize: Normalize) -> Array:
    """Voxel to world of a cube about the origin that holds nearly all there is in a scan."""
    content = normalize(scan).as_tensor()[0].clamp(0, 1)
    step = max(1, round((content.numel() / _SAMPLES) ** (1 / 3)))
    places = np.stack(
        np.meshgrid(*[np.arange(0, n, step) for n in content.shape], indexing="ij"), -1
    )
    away = np.linalg.norm(apply_affine(as_affine(scan.affine), places), axis=-1).ravel()
    weight = content[::step, ::step, ::step].double().numpy().ravel()
    order = away.argsort()
    reach = away[order][np.searchsorted(weight[order].cumsum(), _CONTENT * weight.sum())]
    affine = np.diag([2 * reach / _SIDE] * 3 + [1.0])
    affine[:3, 3] = -reach + reach / _SIDE
    return affine


def _shifts() -> Tensor:
    """Where a scan may lie, (P, 3) voxels of the template from its centre of mass."""
    axis = torch.arange(-_FAR, _FAR + 1, _COARSE).float()
    return torch.cartesian_prod(axis, axis, axis)


def centre_of_mass(volume: Tensor, affine: Array) -> Array:
    """Centre of mass of a volume (I, J, K), in the world (3,); what is below 0 weighs nothing."""
    mass = volume.double().clamp(min=0)
    axes = [mass.sum(dim=[a for a in range(3) if a != axis]) for axis in range(3)]
    voxel = [float((torch.arange(len(a)) * a).sum() / a.sum().clamp(min=1e-9)) for a in axes]
    return apply_affine(affine, np.array(voxel))


def _blurred(volume: Tensor) -> Tensor:
    """(I, J, K), smoothed by :data:`_SIGMA`."""
    kernel = smoothing_kernel(_SIGMA).to(volume)
    out = volume[None, None]
    for axis in range(3):
        shape, pad = [1, 1, 1], [0, 0, 0]
        shape[axis], pad[axis] = len(kernel), len(kernel) // 2
        out = F.conv3d(out, kernel.view(1, 1, *shape), padding=pad)
    return out[0, 0]


def _air(scan: MetaTensor) -> float:
    return float(scan.as_tensor().min())
