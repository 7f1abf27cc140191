"""Learning to see: the losses by NumPy, and a few steps on blobs."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Generator

from medrl.seednet.data import LabelledGrid
from medrl.seednet.model import ModelSettings
from medrl.seednet.perception import (
    PerceptionLearner,
    PerceptionSettings,
    edge_loss,
    prior_loss,
)
from medrl.seednet.sampling import Sampler, Sampling
from medrl.seednet.view import nearness

SMALL = Sampling(window=(16, 16, 16), shift=3.0)
MakeCases = Callable[..., list[LabelledGrid]]


def learner(
    make_cases: MakeCases, settings: ModelSettings, *, seed: int = 0, **options: float
) -> PerceptionLearner:
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    recipe = {"steps": 30, "batch": 2, "learning_rate": 1e-2, **options}
    return PerceptionLearner(
        settings.build_network(),
        Sampler(make_cases(4), SMALL, generator),
        PerceptionSettings(**recipe),  # type: ignore[arg-type]
        generator=generator,
    )


def test_the_edge_loss_by_hand() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(2, 3, 3, 4, 2)) * 0.6
    truth = rng.random((2, 3, 4, 2)) < 0.4
    total, count = 0.0, 0
    for n, i, j, k in np.ndindex(*truth.shape):
        for di, dj, dk in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
            other = (i + di, j + dj, k + dk)
            if any(c >= size for c, size in zip(other, truth.shape[1:], strict=True)):
                continue
            difference = embedding[n, :, i, j, k] - embedding[(n, slice(None), *other)]
            weight = math.exp(-(difference**2).sum())
            same = truth[n, i, j, k] == truth[(n, *other)]
            total += -math.log(weight) if same else -3.0 * math.log(1 - weight + 1e-4)
            count += 1
    found = edge_loss(torch.from_numpy(embedding).float(), torch.from_numpy(truth), cut_weight=3.0)
    assert float(found) == pytest.approx(total / count, rel=1e-4)


def test_equal_embeddings_lose_a_finite_amount_across_a_boundary() -> None:
    truth = torch.zeros(1, 2, 2, 2, dtype=torch.bool)
    flat = torch.zeros(1, 1, 2, 2, 2, requires_grad=True)
    assert float(edge_loss(flat, truth, cut_weight=2.0).detach()) == 0.0
    truth[0, 0] = True
    loss = edge_loss(flat, truth, cut_weight=2.0)
    # 4 of the 12 edges are cut.
    assert float(loss.detach()) == pytest.approx(-2 * math.log(1e-4) * 4 / 12, rel=1e-4)
    loss.backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


def test_the_prior_loss_by_hand() -> None:
    rng = np.random.default_rng(1)
    logits, truth = rng.normal(size=(2, 3, 4, 5)), rng.random((2, 3, 4, 5)) < 0.3
    weights = rng.uniform(1, 4, size=truth.shape)
    p = 1 / (1 + np.exp(-logits))
    entropy = (-np.where(truth, np.log(p), np.log(1 - p)) * weights).mean()
    overlaps = [
        (2 * (p[n] * truth[n]).sum() + 1) / (p[n].sum() + truth[n].sum() + 1) for n in range(2)
    ]
    found = prior_loss(torch.from_numpy(logits), torch.from_numpy(truth), torch.from_numpy(weights))
    assert float(found) == pytest.approx(2 * entropy + 1 - np.mean(overlaps), rel=1e-5)


def test_a_seed_reproduces_it(make_cases: MakeCases, settings: ModelSettings) -> None:
    torch.set_num_threads(1)
    runs = []
    for seed, steps in ((0, 3), (0, 3), (1, 3)):
        one = learner(make_cases, settings, seed=seed)
        head = [parameter.clone() for parameter in one.network.value_head.parameters()]
        runs.append([one.train_step() for _ in range(steps)])
        assert one.step == steps
        after = list(one.network.value_head.parameters())
        assert all(torch.equal(a, b) for a, b in zip(head, after, strict=True))
    assert one.total_steps == 30
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_it_learns(make_cases: MakeCases, settings: ModelSettings) -> None:
    one = learner(make_cases, settings)
    windows = Sampler(make_cases(4, first=10), SMALL, Generator().manual_seed(9)).draw(6)

    @torch.no_grad()
    def losses() -> list[float]:
        network = copy.deepcopy(one.network).train()
        features = network.encode(windows.image)
        logits = network.prior(features, nearness(windows.click), windows.target)
        embedding = network.edge_embedding(features, windows.target)
        return [
            float(prior_loss(logits, windows.truth, torch.ones_like(logits))),
            float(edge_loss(embedding, windows.truth, cut_weight=2.0)),
        ]

    before = losses()
    for _ in range(30):
        one.train_step()
    prior, edges = (after / start for after, start in zip(losses(), before, strict=True))
    assert prior < 0.8
    assert edges < 0.9


def test_simulated_corrections_say_the_truth(
    make_cases: MakeCases, settings: ModelSettings
) -> None:
    one = learner(make_cases, settings, corrected=1.0, corrections=4)
    sample = one._sampler.draw(3)
    with torch.no_grad():
        features = one.network.encode(sample.image)
    counts = []
    for _ in range(6):
        seeds = one._corrected(features, sample)
        marked = seeds >= 0
        assert torch.equal(seeds[marked] == 1, sample.truth[marked])
        assert bool((seeds[sample.click == 1] == 1).all())
        counts += marked.flatten(1).sum(dim=1).tolist()
    assert min(counts) >= 2
    assert 3 <= max(counts) <= 5
    none = learner(make_cases, settings, corrected=0.0)
    assert torch.equal(none._corrected(features, sample), sample.click)
