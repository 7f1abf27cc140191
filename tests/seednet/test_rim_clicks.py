"""A click on an object's rim is a click like any other: the answer is the whole object."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

import medrl
from medrl.seednet.model import SeedModel
from medrl.seednet.network import Features
from medrl.seednet.seeds import Seed
from medrl.seednet.segment import SeedSegmenter
from medrl.seednet.session import SeedSession


class ShortSighted(nn.Module):
    """A network that takes the end of its window for the end of the object, some voxels early."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.sharp = network

    def prior(self, features: Features, seed_maps: Tensor, target: Tensor) -> Tensor:
        logits = self.sharp.prior(features, seed_maps, target)
        far = F.pad(torch.ones([side - 8 for side in logits.shape[1:]]), [4] * 6) > 0
        return torch.where(far | (seed_maps[:, 1] > 0.8), logits, -12.0)

    def __getattr__(self, name: str) -> Any:
        known = name in ("encode", "edge_embedding", "values")
        return getattr(self.sharp, name) if known else super().__getattr__(name)


def border(truth: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Voxels (V, 3) with a neighbour (of six) outside the object."""
    return np.argwhere(truth & ~ndimage.binary_erosion(truth))


def test_every_border_voxel_of_an_ellipsoid(make_model) -> None:
    """Its ends lie farther from each other than the window reaches from a click."""
    shape, center, axes = (28, 60, 28), np.array([13.0, 30.0, 14.0]), np.array([3.5, 10.0, 3.5])
    voxel = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    truth = np.square((voxel - center) / axes).sum(-1) <= 1
    volume = torch.from_numpy(np.where(truth, 190.0, -110.0))[None].float()
    scan = MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])).double())
    sharp = make_model(half_width=16)
    model = SeedModel(sharp.settings, ShortSighted(sharp.network))
    clicks = border(truth)
    assert len(clicks) > 200
    session = SeedSession(model)
    session.set_scan(scan)
    for click in clicks:
        session.new_object()
        session.add_seed(2.0 * click, "fg")
        mask = session.mask()[0].numpy() > 0
        assert mask[tuple(click)]
        assert (mask & truth).sum() >= 0.97 * truth.sum(), click
        assert (mask & ~truth).sum() <= 0.03 * truth.sum(), click


@pytest.mark.parametrize("subject", ["hippocampus_040", "hippocampus_171"])
def test_both_ends_of_a_hippocampus(data_root: Path, subject: str) -> None:
    folder = data_root / "msd_hippocampus"
    if not folder.is_dir():
        pytest.skip("the hippocampi are not there: set MEDRL_DATA")
    labels = nib.load(folder / "labels" / f"{subject}.nii.gz")
    truth = np.asarray(labels.dataobj) > 0
    segmenter: SeedSegmenter = medrl.load("hippocampus-t1")
    scan = medrl.read(folder / "images" / f"{subject}.nii.gz")
    rim = border(truth)
    ends = rim[np.argsort(rim[:, 1], kind="stable")]
    for click in (*ends[:60:20], *ends[-60::20]):
        seed = Seed(nib.affines.apply_affine(labels.affine, click), 1)
        mask = segmenter.segment(scan, [seed], agent=False).mask[0].numpy() > 0
        assert mask[tuple(click)]
        assert (mask & truth).sum() >= 0.8 * truth.sum(), click
        assert 2 * (mask & truth).sum() >= 0.85 * (mask.sum() + truth.sum()), click
