import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.segmentation import random_walker

from medrl.errors import MedrlError
from medrl.walker.edges import feature_edges, intensity_edges
from medrl.walker.segmenter import RandomWalker

SOLVERS = pytest.mark.parametrize("numba", [True, False], ids=["numba", "torch"])


def _ball(shape: tuple[int, int, int], *, noise: float = 0.1, seed: int = 0) -> NDArray[np.float64]:
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    inside = sum(axis**2 for axis in axes) < 0.3
    return inside + noise * np.random.default_rng(seed).standard_normal(shape)


def _seeds(shape: tuple[int, int, int], count: int, *, seed: int = 1) -> NDArray[np.int8]:
    random = np.random.default_rng(seed)
    truth = _ball(shape, noise=0.0) > 0.5
    out = np.full(shape, -1, dtype=np.int8)
    places = tuple(random.integers(0, n, count) for n in shape)
    out[places] = truth[places]
    middle = tuple(n // 2 for n in shape)
    out[middle], out[0, 0, 0] = 1, 0
    return out


def _theirs(
    image: NDArray[np.float64], seeds: NDArray[np.int8], *, spacing: tuple[float, ...], beta: float
) -> NDArray[np.float64]:
    """Scikit-image's probability of foreground, by a direct solve."""
    labels = np.where(seeds < 0, 0, 2 - seeds)  # 1 foreground, 2 background
    found = random_walker(
        image, labels, beta=beta, mode="bf", spacing=spacing, return_full_prob=True
    )
    return np.asarray(found[0])


# A diagonal preconditioner, which is torch's, does not see voxels that are all but cut off.
@pytest.mark.parametrize(("numba", "beta"), [(True, 130.0), (True, 1000.0), (False, 60.0)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 0.5, 2.5)])
def test_probabilities_are_those_of_scikit_image(
    numba: bool, spacing: tuple[float, float, float], beta: float
) -> None:
    shape = (17, 14, 19)
    image, seeds = _ball(shape), _seeds(shape, 12)
    window = torch.from_numpy(image).float()[None, None]
    walker = RandomWalker(numba=numba)
    system = walker.prepare(intensity_edges(window, spacing=spacing, beta=beta))
    ours = walker.solve(system, torch.from_numpy(seeds)[None])[0].numpy()
    theirs = _theirs(image, seeds, spacing=spacing, beta=beta)
    assert np.abs(ours - theirs).max() < 0.01
    assert ((ours > 0.5) == (theirs > 0.5)).mean() >= 0.999


@SOLVERS
def test_a_warm_start_comes_to_the_same(numba: bool) -> None:
    shape = (20, 20, 20)
    window = torch.from_numpy(_ball(shape)).float()[None, None]
    walker = RandomWalker(numba=numba)
    system = walker.prepare(intensity_edges(window))
    seeds = torch.from_numpy(_seeds(shape, 8))[None]
    before = walker.solve(system, seeds)
    more = seeds.clone()
    more[0, 3, 17, 4] = 0
    more[0, 10, 12, 9] = 0  # inside the ball
    warm, cold = walker.solve(system, more, start=before), walker.solve(system, more)
    assert float((warm - cold).abs().max()) < 0.01
    assert float((warm - before).abs().max()) > 0.1
    assert warm[0, 3, 17, 4] == 0
    assert warm[0, 10, 12, 9] == 0


@SOLVERS
def test_with_a_prior_it_is_the_dense_solution(numba: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    shape, weight = (5, 6, 4), 0.3
    weights = torch.rand(1, 3, *shape, generator=generator).clamp(min=0.05)
    prior = torch.rand(1, *shape, generator=generator)
    seeds = torch.full((1, *shape), -1, dtype=torch.int8)
    seeds[0, 1, 1, 1], seeds[0, 4, 4, 2] = 1, 0
    walker = RandomWalker(prior_weight=weight, tolerance=1e-4, numba=numba)
    ours = walker.solve(walker.prepare(weights), seeds, prior=prior)

    index = np.arange(np.prod(shape)).reshape(shape)
    matrix = np.diag(np.full(index.size, weight))
    for axis in range(3):
        near = np.moveaxis(index, axis, 0)[:-1].ravel()
        far = np.moveaxis(index, axis, 0)[1:].ravel()
        joined = np.moveaxis(weights[0, axis].numpy(), axis, 0)[:-1].ravel()
        for a, b, w in zip(near, far, joined, strict=True):
            matrix[[a, b], [a, b]] += w
            matrix[a, b] -= w
            matrix[b, a] -= w
    right = weight * prior.numpy().ravel().astype(np.float64)
    for place, value in ((index[1, 1, 1], 1.0), (index[4, 4, 2], 0.0)):
        matrix[place] = 0
        matrix[place, place], right[place] = 1, value
    exact = np.linalg.solve(matrix, right).reshape(shape)
    np.testing.assert_allclose(ours[0].numpy(), exact, atol=2e-3)


@SOLVERS
def test_windows_of_a_batch_do_not_see_each_other(numba: bool) -> None:
    shape = (12, 13, 11)
    images = np.stack([_ball(shape, seed=n) for n in range(3)])
    walker = RandomWalker(numba=numba)
    system = walker.prepare(intensity_edges(torch.from_numpy(images).float()[:, None]))
    seeds = torch.from_numpy(np.stack([_seeds(shape, 6, seed=n) for n in range(3)]))
    together = walker.solve(system, seeds)
    for n in range(3):
        alone = walker.solve(system.select(torch.tensor([n])), seeds[n : n + 1])
        assert float((together[n] - alone[0]).abs().max()) < 5e-3


@SOLVERS
def test_one_label_alone_is_everywhere(numba: bool) -> None:
    walker = RandomWalker(numba=numba)
    system = walker.prepare(torch.full((2, 3, 6, 6, 6), 0.5))
    seeds = torch.full((2, 6, 6, 6), -1, dtype=torch.int8)
    seeds[0, 2, 2, 2], seeds[1, 3, 3, 3] = 1, 0
    found = walker.solve(system, seeds)
    assert bool((found[0] == 1).all())
    assert bool((found[1] == 0).all())


def test_learned_edges_are_the_probability_that_nothing_ends_there() -> None:
    embedding = torch.zeros(1, 2, 3, 3, 3)
    embedding[:, 0, 2] = 2.0
    weights = feature_edges(embedding)
    assert float(weights[0, 0, 0, 1, 1]) == pytest.approx(1.0, abs=1e-5)
    assert float(weights[0, 0, 1, 1, 1]) == pytest.approx(np.exp(-4.0) + 1e-6, rel=1e-4)


def test_bad_input_is_refused() -> None:
    walker = RandomWalker()
    system = walker.prepare(torch.ones(1, 3, 4, 4, 4))
    none = torch.full((1, 4, 4, 4), -1, dtype=torch.int8)
    one = none.clone()
    one[0, 1, 1, 1] = 1
    with pytest.raises(MedrlError, match="place a seed first"):
        walker.solve(system, none)
    with pytest.raises(MedrlError, match="seeds must be"):
        walker.solve(system, one[:, :3])
    with pytest.raises(MedrlError, match="int8"):
        walker.solve(system, one.long())
    with pytest.raises(MedrlError, match="prior must be within"):
        walker.solve(system, one, prior=torch.full((1, 4, 4, 4), 2.0))
    with pytest.raises(MedrlError, match="weights must be"):
        walker.prepare(torch.ones(1, 4, 4, 4))
    with pytest.raises(MedrlError, match="above 0"):
        walker.prepare(torch.zeros(1, 3, 4, 4, 4))
    with pytest.raises(MedrlError, match="positive"):
        RandomWalker(tolerance=0.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same() -> None:
    shape = (20, 18, 22)
    window = torch.from_numpy(_ball(shape)).float()[None, None]
    seeds = torch.from_numpy(_seeds(shape, 8))[None]
    walker = RandomWalker()
    weights = intensity_edges(window)
    here = walker.solve(walker.prepare(weights), seeds)
    there = walker.solve(walker.prepare(weights.cuda()), seeds.cuda()).cpu()
    assert float((here - there).abs().max()) < 0.01
