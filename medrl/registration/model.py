"""A trained set of registration agents, and how it is stored in a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.nets.familiarity import Familiarity
from medrl.registration.confidence import Confidence
from medrl.registration.dynamics import (
    UNSEEN,
    RegistrationDynamics,
    Rules,
    View,
    windows_of,
)
from medrl.registration.network import LevelSettings, RegistrationNetwork
from medrl.registration.search import SearchSettings
from medrl.registration.transforms import Kind
from medrl.volume.prepare import Preprocessing
from medrl.volume.pyramid import Pyramid, build_pyramid, level_strides
from medrl.volume.resample import resample_onto
from medrl.volume.space import apply_affine, as_affine, spacing_of

if TYPE_CHECKING:
    from medrl.bundles import Guard

FINE = LevelSettings(
    spacing=4.0, window=32, channels=(16, 32, 64, 128), strides=(2, 2, 1, 2), squeeze=64
)
COARSE = LevelSettings(spacing=8.0, window=24)


@dataclass(frozen=True)
class ModelSettings:
    """Everything that must be known to run the networks.

    Attributes:
        levels: Resolutions, finest first.
        search: How agents go about it.
        confidence: From what the agents say in the end to a probability; None before calibration.
    """

    levels: tuple[LevelSettings, ...] = (FINE, COARSE)
    search: SearchSettings = field(default_factory=SearchSettings)
    confidence: Confidence | None = None

    @property
    def spacings(self) -> tuple[float, ...]:
        """Voxel sizes, finest first, mm.

        Raises:
            MedrlError: If they are not whole multiples of the finest.
        """
        spacings = tuple(level.spacing for level in self.levels)
        level_strides(spacings)
        return spacings

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> ModelSettings:
        """Read what :func:`dataclasses.asdict` wrote.

        Raises:
            MedrlError: If a setting is missing, unknown or of the wrong type.
        """
        from medrl.bundles import settings_from

        settings = settings_from(ModelSettings, values)
        if not settings.levels:
            raise MedrlError("the model's settings name no level")
        return settings


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as agents see it.

    Attributes:
        levels: A pyramid of one level for each of the model's, finest first.
        center_world: (3,) mean position of what is not air, RAS mm.
    """

    levels: tuple[Pyramid, ...]
    center_world: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RegistrationModel:
    """Networks of all levels.

    Attributes:
        settings: How to run them.
        networks: One per level, finest first, in evaluation mode.
        guard: What the training scans were like; None if nobody has measured them.
        familiarity: What each network saw in training of scans that lie on each other; empty
            likewise.
    """

    settings: ModelSettings
    networks: tuple[RegistrationNetwork, ...]
    guard: Guard | None = None
    familiarity: tuple[Familiarity, ...] = ()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.networks[0].parameters()).device

    @property
    def steps(self) -> int:
        """Of agents that go through all levels, counting that they are there in the end."""
        return sum(map(len, self.settings.search.candidate_steps)) + 1

    def prepare(self, scan: MetaTensor, mask: MetaTensor | None = None) -> PreparedScan:
        """Bring a scan into the form in which agents look at it.

        Args:
            scan: MetaTensor (1, I, J, K) with its affine.
            mask: What agents may see of it, on any grid (1, I, J, K); all if None.

        Raises:
            MedrlError: If the scan is constant, its geometry unusable, or the mask leaves nothing.
        """
        spacings = self.settings.spacings
        affine = as_affine(scan.affine.cpu())
        # In millimetres along the scan's own axes an oblique scan has no empty corners.
        own = np.diag([*spacing_of(affine), 1.0])
        to_world = affine @ np.linalg.inv(own)
        voxels = scan.as_tensor()
        if mask is not None:
            # Taken for air, what is masked does not set the scale of the intensities.
            shown = resample_onto(mask, affine=affine, shape=_grid(voxels)).as_tensor() > 0.5
            voxels = voxels.masked_fill(~shown, float(voxels.min()))
        straight = MetaTensor(voxels.to(self.device), affine=torch.from_numpy(own))
        prepared = Preprocessing(spacing=spacings[0])(straight)
        pyramid = build_pyramid(prepared, spacings=spacings)
        seen = torch.ones_like(pyramid.levels[0], dtype=torch.bool)
        if mask is not None:
            grid = to_world @ as_affine(prepared.affine.cpu())
            seen = resample_onto(mask, affine=grid, shape=_grid(seen)).as_tensor() > 0.5
            if not bool(seen.any()):
                raise MedrlError("the mask leaves nothing of the scan")
        levels = []
        for volume, spacing, stride, place in zip(
            pyramid.levels, spacings, pyramid.strides, pyramid.affines, strict=True
        ):
            hidden = volume.masked_fill(~seen[:, ::stride, ::stride, ::stride], UNSEEN)
            levels.append(Pyramid((hidden,), (spacing,), (to_world @ place,), UNSEEN))
        return PreparedScan(tuple(levels), _center(levels[-1]))

    def dynamics(
        self, fixed: PreparedScan, moving: PreparedScan, *, kind: Kind = "rigid"
    ) -> RegistrationDynamics:
        """Where agents move one scan under the other, on all levels."""
        pivot = torch.from_numpy(fixed.center_world)[None].to(self.device)
        views = []
        for level, one, other in zip(
            self.settings.levels, fixed.levels, moving.levels, strict=True
        ):
            to_fixed, to_moving = (
                torch.from_numpy(np.linalg.inv(scan.affines[0]))[None].to(self.device)
                for scan in (one, other)
            )
            shown = windows_of((one,), to_fixed, pivot, level.spacing, level.window)
            views.append(View(level.spacing, shown, (other,), to_moving))
        schedule = tuple(map(len, self.settings.search.candidate_steps))
        return RegistrationDynamics(views, pivot, Rules(kind=kind, max_steps=schedule))

    def save(self, folder: Path, *, name: str, card: Mapping[str, Any]) -> Path:
        """Write the model as a bundle.

        Args:
            folder: The bundle's folder.
            name: Its name.
            card: Its model card: what users should know of data, licence and limits.

        Returns:
            The folder.
        """
        from medrl.bundles import network_tensors, new_manifest, save

        settings = asdict(self.settings)
        manifest = new_manifest(
            name=name, task="registration", settings=settings, card=card, guard=self.guard
        )
        tensors = self.familiar_tensors()
        for level, network in enumerate(self.networks):
            tensors |= network_tensors(network, prefix=f"level{level}.")
        return save(folder, tensors, manifest)

    def familiar_tensors(self) -> dict[str, Tensor]:
        """What the networks saw in training, as a bundle stores it."""
        tensors: dict[str, Tensor] = {}
        for level, known in enumerate(self.familiarity):
            tensors |= known.tensors(f"level{level}.")
        return tensors

    @staticmethod
    def load(bundle: Path, *, device: str = "cpu") -> tuple[RegistrationModel, dict[str, Any]]:
        """Load a bundle folder.

        Args:
            bundle: Folder with ``model.json`` and ``model.safetensors``.
            device: Torch device.

        Returns:
            The model, fused for inference, and its manifest.

        Raises:
            MedrlError: If it is not a registration bundle of this version, or damaged.
        """
        from medrl.bundles import assemble, damaged, guard_of, read_model

        manifest, tensors = read_model(bundle, task="registration")
        settings = ModelSettings.from_json(manifest["settings"])
        networks = []
        for level, options in enumerate(settings.levels):
            make = partial(RegistrationNetwork, options)
            network = assemble(make, tensors, source=bundle, prefix=f"level{level}.")
            networks.append(network.fuse().to(device))
        with damaged("the model's familiarity is damaged"):
            every = range(len(networks))
            known = [Familiarity.from_tensors(tensors, f"level{level}.") for level in every]
        familiarity = tuple(one for one in known if one is not None)
        guard = guard_of(manifest)
        return RegistrationModel(settings, tuple(networks), guard, familiarity), dict(manifest)


def _grid(volume: Tensor) -> tuple[int, int, int]:
    """Size (I, J, K) of a volume (C, I, J, K)."""
    return volume.shape[1], volume.shape[2], volume.shape[3]


def _center(pyramid: Pyramid) -> NDArray[np.float64]:
    """Mean position of the voxels that are not air, RAS mm."""
    body = (pyramid.levels[0][0] > _AIR).nonzero().double()
    if len(body) == 0:
        raise MedrlError("nothing in the scan stands out from the air around it")
    return apply_affine(pyramid.affines[0], body.mean(dim=0).cpu().numpy())


#: Normalised intensity below which a voxel is taken for air.
_AIR = 0.15
