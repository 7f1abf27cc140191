"""Networks of registration agents: targets, memory, fusing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from medrl.registration.dynamics import ACTIONS, step_sizes
from medrl.registration.network import (
    LevelSettings,
    Outputs,
    RegistrationNetwork,
    expected_steps,
    target_distribution,
)

SMALL = LevelSettings(
    spacing=8.0, window=8, channels=(4, 6), strides=(2, 1), squeeze=5, features=12, memory=7
)
STEPS = step_sizes(SMALL.spacing)
HEADS = ("logits", "error", "value")


def build(settings: LevelSettings = SMALL, *, seed: int = 0) -> RegistrationNetwork:
    torch.manual_seed(seed)
    return RegistrationNetwork(settings)


def windows(count: int = 3, *, seed: int = 1) -> torch.Tensor:
    return torch.rand((count, 3, 8, 8, 8), generator=torch.Generator().manual_seed(seed))


def same(a: Outputs, b: Outputs, **tolerance: float) -> bool:
    return all(torch.allclose(getattr(a, name), getattr(b, name), **tolerance) for name in HEADS)


def test_steps_scale_with_the_voxels() -> None:
    coarse = [-25, -10, -4, -1.5, 0, 1.5, 4, 10, 25]
    assert STEPS.tolist() == coarse
    assert step_sizes(2.0).tolist() == [step / 4 for step in coarse]
    assert len(coarse) == ACTIONS


def test_targets_have_the_wanted_mean_on_two_neighbours() -> None:
    rng = np.random.default_rng(0)
    steps = STEPS
    wanted = torch.from_numpy(np.concatenate([rng.uniform(-25, 25, (40, 12)), [[0] * 12]]))
    wanted[0, : len(steps)] = steps
    target = target_distribution(wanted, steps)
    assert target.shape == (41, 12, ACTIONS)
    assert float(target.min()) >= 0
    torch.testing.assert_close(target.sum(dim=-1), torch.ones_like(wanted))
    torch.testing.assert_close((target * steps).sum(dim=-1), wanted, atol=1e-12, rtol=0)
    for row, value in zip(target.reshape(-1, ACTIONS), wanted.reshape(-1), strict=True):
        used = row.nonzero()[:, 0].tolist()
        assert len(used) <= 2
        # No other step lies between the two, nor between them and what is wanted.
        between = steps[used[0]] <= value + 1e-12 and value <= steps[used[-1]] + 1e-12
        assert between
        assert used[-1] - used[0] == len(used) - 1


def test_targets_beyond_the_longest_step_are_the_longest() -> None:
    target = target_distribution(torch.tensor([-300.0, 80.0, 25.0]).double(), STEPS)
    assert target.argmax(dim=-1).tolist() == [0, ACTIONS - 1, ACTIONS - 1]
    assert target.amax(dim=-1).tolist() == [1, 1, 1]


def test_expected_steps_are_means() -> None:
    logits = torch.full((2, 12, ACTIONS), -1e4)
    logits[0, :, 7] = 0
    logits[1, :, 4:6] = 3
    found = expected_steps(logits, STEPS)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[0], torch.full((12,), 10.0).double())
    torch.testing.assert_close(found[1], torch.full((12,), 0.75).double())
    wanted = torch.linspace(-20, 20, 24).double().view(2, 12)
    exact = target_distribution(wanted, STEPS).log()
    torch.testing.assert_close(expected_steps(exact, STEPS), wanted)


@pytest.mark.parametrize("in_view", [True, False])
def test_shapes(in_view: bool) -> None:
    network = build(replace(SMALL, in_view=in_view))
    outputs = network(windows(5), network.blank(5))
    assert outputs.logits.shape == (5, 12, ACTIONS)
    assert outputs.error.shape == outputs.value.shape == (5,)
    assert outputs.memory.shape == (5, 7)


def test_only_agents_that_are_told_know_what_is_in_view() -> None:
    seen = windows()
    other = seen.clone()
    other[:, 2] = 1 - other[:, 2]
    told, untold = build().eval(), build(replace(SMALL, in_view=False)).eval()
    assert not same(told(seen), told(other), atol=1e-6)
    assert same(untold(seen), untold(other))


def test_untrained_memory_changes_nothing() -> None:
    network = build().eval()
    remembered = torch.randn((3, 7), generator=torch.Generator().manual_seed(2))
    plain, with_memory = network(windows()), network(windows(), remembered)
    for name in HEADS:
        assert (getattr(plain, name) == getattr(with_memory, name)).all(), name
    assert not torch.equal(plain.memory, with_memory.memory)
    with torch.no_grad():
        network.recall.weight.normal_()
    assert not same(network(windows()), network(windows(), remembered), atol=1e-4)
    # What was seen before counts now.
    after = [network(windows(seed=s), network.blank(3)).memory for s in (3, 4)]
    assert not same(*(network(windows(), memory) for memory in after), atol=1e-4)


def test_memory_is_where_gradients_get_in() -> None:
    network = build()
    network(windows(), network.blank(3)).error.sum().backward()
    assert float(network.recall.weight.grad.abs().max()) > 0


def test_fused_networks_give_the_same_numbers() -> None:
    network = build()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
            nn.init.uniform_(layer.weight, -1, 2)
            nn.init.uniform_(layer.bias, -1, 1)
    with torch.no_grad():
        network.recall.weight.normal_()
    network.eval()
    memory = torch.randn((3, 7), generator=torch.Generator().manual_seed(2))
    before = network(windows(), memory)
    fused = network.fuse()
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in fused.modules())
    after = fused(windows(), memory)
    assert same(before, after, atol=1e-5)
    torch.testing.assert_close(before.memory, after.memory)
