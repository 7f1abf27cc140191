"""A model that knows what it is doing without training: bright is object, dim is overlooked."""

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from torch import Tensor, nn
from torch.nn import functional as F

from medrl.data.targets import Target
from medrl.seednet.model import GAIN_UNIT, ModelSettings, SeedModel
from medrl.seednet.network import Features
from medrl.seednet.session import SeedSession
from medrl.volume.channels import Channel


class Bright(nn.Module):
    """Its prior finds bright voxels; its agent adds what is dim and takes away what is dark."""

    def encode(self, image: Tensor) -> Features:
        shown = image.amax(dim=1, keepdim=True)
        half = F.avg_pool3d(shown, 2)
        return Features(shown, half, F.avg_pool3d(half, 2))

    def edge_embedding(self, features: Features, target: Tensor) -> Tensor:
        return 2.5 * (features.full > -0.1)

    def prior(self, features: Features, seed_maps: Tensor, target: Tensor) -> Tensor:
        # Where a seed says so, whatever it looks like.
        said = 20 * (seed_maps[:, 1] > 0.8) - 20 * (seed_maps[:, 0] > 0.8)
        return 12 * (features.full[:, 0] - 0.7) + said

    def values(self, features: Features, view: Tensor, target: Tensor) -> Tensor:
        mask, background, foreground = view[:, 2], view[:, 4], view[:, 5]
        shown = features.half[:, 0]
        far = 1 - torch.maximum(background, foreground)
        more = torch.where(shown > -0.3, (1 - mask), -1.0) * far
        less = torch.where(shown < -0.7, mask, -1.0) * far
        cells = torch.stack([less, more], dim=1).flatten(1) - 0.4
        return GAIN_UNIT * torch.cat([cells / 10, torch.zeros(len(cells), 1)], dim=1)


def bright_model(**settings) -> SeedModel:
    values = {
        "channels": (Channel("CT", "hounsfield"),),
        "targets": (Target("ball"), Target("half")),
        "spacing": 2.0,
        "half_width": 12,
        "prior_weight": 0.1,
        "max_seeds": 10,
        **settings,
    }
    return SeedModel(ModelSettings(**values), Bright())


CENTER, RADIUS = np.array([9.0, -14.0, 31.0]), 14.0


def ball_scan(affine, shape, *, center=CENTER, radius=RADIUS, dim=True) -> MetaTensor:
    """A bright ball in the dark, its lower third dim; centre and radius in RAS mm."""
    affine = np.asarray(affine, dtype=np.float64)
    voxel = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = voxel @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(world - center, axis=-1) <= radius
    low = inside & (world[..., 2] < center[2] - radius / 3)
    volume = np.where(inside, 190.0, -110.0)
    if dim:
        volume[low] = 100.0
    return MetaTensor(torch.from_numpy(volume)[None].float(), affine=torch.from_numpy(affine))


def turned(degrees: float, spacing, shape) -> np.ndarray:
    """An affine whose grid is turned about two axes, its middle at the ball's centre."""
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = [[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    affine = np.eye(4)
    affine[:3, :3] = np.array(about_z) @ np.array(about_x) @ np.diag(spacing)
    affine[:3, 3] = CENTER - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


#: Grids of all kinds, as (affine, shape).
GRIDS = {
    "straight": (turned(0, (2, 2, 2), (30, 32, 28)), (30, 32, 28)),
    "flipped": (turned(0, (-2, -2, 2), (30, 32, 28)), (30, 32, 28)),
    "finer, anisotropic": (turned(0, (-1.2, 1.2, 3.27), (50, 50, 20)), (50, 50, 20)),
    "coarser": (turned(0, (3.5, 3.5, 5), (20, 20, 14)), (20, 20, 14)),
    "CT": (turned(0, (-2, -2, 3.27), (40, 40, 26)), (40, 40, 26)),
    "oblique": (turned(25, (2.0, -1.7, 2.5), (34, 38, 30)), (34, 38, 30)),
    "permuted": (turned(0, (2, 2, 2), (30, 32, 28))[:, [2, 0, 1, 3]], (28, 30, 32)),
}


@pytest.fixture
def model() -> SeedModel:
    return bright_model()


@pytest.fixture
def make_model():
    return bright_model


@pytest.fixture
def make_scan():
    """Build a scan with a ball in it; a grid's name or an affine and a shape."""

    def make(grid="straight", **options) -> MetaTensor:
        return ball_scan(*(GRIDS[grid] if isinstance(grid, str) else grid), **options)

    make.center, make.radius, make.grids = CENTER, RADIUS, GRIDS
    return make


@pytest.fixture
def session(model, make_scan) -> SeedSession:
    """A session with the straight scan."""
    session = SeedSession(model)
    session.set_scan(make_scan())
    return session
