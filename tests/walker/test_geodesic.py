import numpy as np
import pytest
import torch
from skimage.graph import MCP_Geometric

from medrl.errors import MedrlError
from medrl.walker.edges import intensity_edges
from medrl.walker.geodesic import GeodesicSegmenter
from medrl.walker.segmenter import RandomWalker


def _seeds(shape: tuple[int, int, int], **places: tuple[int, int, int]) -> torch.Tensor:
    seeds = torch.full((1, *shape), -1, dtype=torch.int8)
    for label, (i, j, k) in places.items():
        seeds[0, i, j, k] = int(label == "foreground")
    return seeds


def test_on_a_constant_image_the_nearer_seed_wins() -> None:
    shape = (21, 15, 11)
    segmenter = GeodesicSegmenter()
    system = segmenter.prepare(torch.ones(1, 3, *shape))
    seeds = _seeds(shape, foreground=(4, 7, 5), background=(16, 7, 5))
    probability = segmenter.solve(system, seeds)[0]
    assert probability[4, 7, 5] == 1
    assert probability[16, 7, 5] == 0
    # Along the line between the seeds distances are exact.
    line = probability[4:17, 7, 5].numpy()
    np.testing.assert_allclose(line, (12 - np.arange(13)) / 12, atol=1e-4)
    x = np.arange(shape[0])[:, None, None]
    np.testing.assert_array_equal((probability > 0.5).numpy()[x[:, 0, 0] < 10], True)
    np.testing.assert_array_equal((probability > 0.5).numpy()[x[:, 0, 0] > 10], False)


def test_masks_are_those_of_scikit_images_shortest_paths() -> None:
    generator = torch.Generator().manual_seed(3)
    image = torch.zeros(1, 1, 24, 24, 24)
    image[..., 6:17, 6:17, 6:17] = 1.0
    image += 0.05 * torch.randn(image.shape, generator=generator)
    segmenter = GeodesicSegmenter()
    system = segmenter.prepare(intensity_edges(image, beta=500.0))
    seeds = _seeds((24, 24, 24), foreground=(11, 11, 11), background=(2, 2, 2))
    ours = segmenter.solve(system, seeds)[0].numpy() > 0.5
    cost = system.cost[0].numpy()  # type: ignore[attr-defined]
    distances = []
    for place in ((2, 2, 2), (11, 11, 11)):
        distance, _ = MCP_Geometric(cost).find_costs([place])
        distances.append(distance)
    theirs = distances[1] < distances[0]
    # Paths from voxel to voxel are up to a tenth longer than those through the space between.
    assert (ours == theirs).mean() > 0.95


def test_the_prior_moves_the_boundary() -> None:
    shape = (21, 9, 9)
    segmenter = GeodesicSegmenter(prior_weight=2.0)
    system = segmenter.prepare(torch.ones(1, 3, *shape))
    seeds = _seeds(shape, foreground=(4, 4, 4), background=(16, 4, 4))
    prior = torch.zeros(1, *shape)
    prior[:, :14] = 1.0
    plain = segmenter.solve(system, seeds) > 0.5
    pulled = segmenter.solve(system, seeds, prior=prior) > 0.5
    assert pulled.sum() > plain.sum()
    assert not bool(pulled[0, 16:].any())


def test_windows_of_a_batch_do_not_see_each_other() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 10, 11, 12, generator=generator)
    segmenter = GeodesicSegmenter()
    system = segmenter.prepare(intensity_edges(images))
    first = _seeds((10, 11, 12), foreground=(2, 2, 2), background=(8, 8, 8))
    second = _seeds((10, 11, 12), foreground=(7, 2, 9), background=(1, 8, 3))
    both = segmenter.solve(system, torch.cat([first, second]))
    alone = segmenter.solve(system.select(torch.tensor([1])), second)
    torch.testing.assert_close(both[1:], alone)


def test_one_label_alone_is_everywhere_and_none_is_refused() -> None:
    segmenter = GeodesicSegmenter()
    system = segmenter.prepare(torch.ones(1, 3, 6, 6, 6))
    assert bool((segmenter.solve(system, _seeds((6, 6, 6), foreground=(2, 2, 2))) > 0.5).all())
    assert not bool((segmenter.solve(system, _seeds((6, 6, 6), background=(2, 2, 2))) > 0.5).any())
    with pytest.raises(MedrlError, match="place a seed first"):
        segmenter.solve(system, _seeds((6, 6, 6)))


def test_the_systems_of_other_segmenters_and_bad_options_are_refused() -> None:
    other = RandomWalker().prepare(torch.ones(1, 3, 6, 6, 6))
    with pytest.raises(MedrlError, match="another segmenter"):
        GeodesicSegmenter().solve(other, _seeds((6, 6, 6), foreground=(2, 2, 2)))
    with pytest.raises(MedrlError, match="negative"):
        GeodesicSegmenter(contrast=-1.0)
