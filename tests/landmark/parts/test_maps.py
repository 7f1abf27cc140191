"""Heat maps and what they say of each other, against explicit sums."""

import itertools

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import norm

from medrl.landmark.parts.maps import cross_entropy, displacements, peaks, target
from medrl.landmark.parts.network import Maps, SpatialModel

SHAPE = (9, 8, 7)


def test_the_map_of_a_point_has_its_peak_there() -> None:
    points = torch.tensor([[4.3, 3.6, 2.9], [2.0, 5.0, 4.0], [-3.0, 1.0, 1.0], [torch.nan] * 3])
    maps = target(points, SHAPE)
    np.testing.assert_array_equal(maps.gone, [0, 0, 1, 1])
    np.testing.assert_allclose(maps.there.sum(dim=(1, 2, 3)), [1, 1, 0, 0], atol=1e-6)
    found, spread = peaks(maps.there[:2])
    np.testing.assert_allclose(found, points[:2], atol=0.05)
    # A Gaussian of 0.8 voxels along three axes.
    np.testing.assert_allclose(spread, 0.8 * np.sqrt(3), rtol=0.05)


def test_cross_entropy_is_the_sum_over_voxels_and_nowhere() -> None:
    rng = np.random.default_rng(0)
    logits, gone = rng.normal(size=(3, *SHAPE)), rng.normal(size=3)
    points = torch.tensor([[4.0, 3.0, 2.0], [50.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    wanted, known = target(points, SHAPE), torch.tensor([True, True, False])
    loss = cross_entropy(Maps(torch.from_numpy(logits), torch.from_numpy(gone)), wanted, known)
    flat = log_softmax(np.concatenate([logits.reshape(3, -1), gone[:, None]], axis=1), axis=1)
    by_hand = [-(wanted.there[0].numpy().ravel() * flat[0, :-1]).sum(), -flat[1, -1]]
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-5)


def test_displacements_are_mean_and_deviation() -> None:
    points = np.random.default_rng(1).normal(size=(6, 3, 3))
    points[0, 2] = np.nan
    mean, spread = displacements(torch.from_numpy(points))
    away = points[:, 0] - points[:, 2]
    np.testing.assert_allclose(mean[0, 2], np.nanmean(away, axis=0))
    np.testing.assert_allclose(spread[0, 2], np.nanstd(away, axis=0))
    np.testing.assert_allclose(mean, -mean.transpose(0, 1))


def test_messages_are_those_of_an_explicit_convolution() -> None:
    """Tompson et al. 2014, equation 2, voxel by voxel."""
    rng = np.random.default_rng(2)
    shape, count = (4, 3, 5), 3
    model = SpatialModel(
        torch.from_numpy(rng.normal(size=(count, count, 3))),
        torch.from_numpy(rng.uniform(0.7, 2, size=(count, count, 3))),
    )
    logits, gone = rng.normal(size=(count, *shape)), rng.normal(size=count)
    with torch.no_grad():
        model.gone.copy_(torch.from_numpy(rng.normal(size=count)))
        said = model(Maps(torch.from_numpy(logits).float(), torch.from_numpy(gone).float()))
    flat = np.concatenate([logits.reshape(count, -1), gone[:, None]], axis=1)
    there = softmax(flat, axis=1)[:, :-1].reshape(count, *shape)
    nowhere = softmax(flat, axis=1)[:, -1]
    log = log_softmax(flat, axis=1)
    mean, spread = model.displacement.detach().numpy(), np.exp(model.log_spread.detach().numpy())
    trust, bias = (np.log1p(np.exp(p.detach().numpy())) for p in (model.trust, model.bias))
    wanted = log[:, :-1].reshape(count, *shape).copy()
    for a, v in itertools.permutations(range(count), 2):
        for x in np.ndindex(shape):
            total = sum(
                there[v][y] * norm.pdf(np.subtract(x, y), mean[a, v], spread[a, v]).prod()
                for y in np.ndindex(shape)
            )
            message = np.log(total * np.prod(shape) + nowhere[v] + bias[a, v])
            wanted[a][x] += trust[a, v] * message
    np.testing.assert_allclose(said.there, wanted, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(said.gone, log[:, -1] + model.gone.detach().numpy(), rtol=1e-5)


def test_the_others_tell_two_look_alikes_apart() -> None:
    """The first landmark may be left or right of the second; in training it is right of it."""
    shape = (15, 5, 5)
    rng = np.random.default_rng(3)
    second = np.array([7.0, 2, 2]) + rng.normal(size=(20, 3)) / 2
    shapes = np.stack([second + [4, 0, 0] + rng.normal(size=(20, 3)) / 2, second], axis=1)
    model = SpatialModel(*displacements(torch.from_numpy(shapes)))
    both = target(torch.tensor([[3.0, 2, 2], [11.0, 2, 2]]), shape).there
    # The wrong one looks a little better.
    ambiguous = torch.log(0.55 * both[0] + 0.45 * both[1] + 1e-6)
    sure = torch.log(target(torch.tensor([[7.0, 2, 2]]), shape).there[0] + 1e-6)
    with torch.no_grad():
        alone = Maps(torch.stack([ambiguous, sure]), torch.full((2,), -8.0))
        told = model(alone)
        unseen = model(Maps(torch.stack([ambiguous, sure]), torch.tensor([-8.0, 30.0])))
    assert peaks(alone.there.exp())[0][0, 0] == pytest.approx(3, abs=0.1)
    assert peaks(told.log_probability().there.exp())[0][0, 0] == pytest.approx(11, abs=0.2)
    # A landmark that is not in the scan says nothing.
    np.testing.assert_allclose(
        unseen.log_probability().there[0], alone.log_probability().there[0], atol=1e-3
    )
