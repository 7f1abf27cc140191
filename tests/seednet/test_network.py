"""The network's promises: same answer fused, alone or in a batch; STOP is worth nothing."""

import copy

import pytest
import torch
from torch import Tensor

from medrl.seednet.dynamics import SeedDynamics
from medrl.seednet.network import STRIDE, VIEW_CHANNELS, Features, SeedNetwork
from medrl.walker.segmenter import RandomWalker

SHAPE = (8, 16, 24)


def network(*, targets: int = 2, channels: int = 1) -> SeedNetwork:
    """Random weights everywhere, and a normalisation that has seen something."""
    torch.manual_seed(0)
    net = SeedNetwork(channels=channels, targets=targets, widths=(4, 8, 8, 16), edges=3)
    for layer in (net.value_head.advantage, net.value_head.state):
        torch.nn.init.normal_(layer.weight, std=0.3)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    return net.eval()


def inputs(count: int, channels: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    cells = [side // STRIDE for side in SHAPE]
    return (
        torch.randn((count, channels, *SHAPE), generator=generator),
        torch.rand((count, 4, *SHAPE), generator=generator),
        torch.rand((count, VIEW_CHANNELS, *cells), generator=generator),
        torch.arange(count) % 2,
    )


@torch.no_grad()
def everything(net: SeedNetwork, *given: Tensor) -> dict[str, Tensor]:
    window, maps, view, target = given
    features = net.encode(window)
    return {
        "full": features.full,
        "half": features.half,
        "quarter": features.quarter,
        "edges": net.edge_embedding(features, target),
        "prior": net.prior(features, maps, target),
        "values": net.values(features, view, target),
    }


def test_shapes() -> None:
    out = everything(network(channels=2), *inputs(3, channels=2))
    assert {name: tuple(x.shape) for name, x in out.items()} == {
        "full": (3, 4, 8, 16, 24),
        "half": (3, 8, 4, 8, 12),
        "quarter": (3, 8, 2, 4, 6),
        "edges": (3, 3, 8, 16, 24),
        "prior": (3, 8, 16, 24),
        "values": (3, 2 * 4 * 8 * 12 + 1),
    }
    assert SeedDynamics(RandomWalker(), stride=STRIDE).actions(SHAPE) == out["values"].shape[1]


def test_fused_is_the_same_function() -> None:
    net = network()
    fused = copy.deepcopy(net).fuse()
    assert not any(isinstance(module, torch.nn.BatchNorm3d) for module in fused.modules())
    given = inputs(2)
    for name, x in everything(net, *given).items():
        torch.testing.assert_close(everything(fused, *given)[name], x, atol=1e-4, rtol=1e-4)


def test_a_window_gets_the_same_answer_alone_and_in_a_batch() -> None:
    net = network()
    given = inputs(3)
    together = everything(net, *given)
    for n in range(3):
        alone = everything(net, *(x[n : n + 1] for x in given))
        for name, x in alone.items():
            torch.testing.assert_close(x[0], together[name][n], atol=1e-5, rtol=1e-4)


def test_learning_and_looking_compute_the_same() -> None:
    # Without gradients, convolutions take another way.
    net = network()
    window, maps, view, target = inputs(2)
    features = net.encode(window)
    out = everything(net, window, maps, view, target)
    torch.testing.assert_close(features.full, out["full"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        net.prior(features, maps, target), out["prior"], atol=1e-4, rtol=1e-4
    )
    values = net.values(features, view, target)
    torch.testing.assert_close(values, out["values"], atol=1e-4, rtol=1e-4)


def test_stop_is_worth_nothing_and_nothing_is_before_learning() -> None:
    assert not everything(network(), *inputs(3))["values"][:, -1].any()
    torch.manual_seed(0)
    fresh = SeedNetwork(targets=2, widths=(4, 8, 8, 16)).eval()
    assert not everything(fresh, *inputs(3))["values"].any()


def test_values_are_dueling() -> None:
    net = network()
    window, _, view, target = inputs(2)
    before = everything(net, *inputs(2))["values"]
    # What is the same for all seeds is the state's.
    with torch.no_grad():
        net.value_head.advantage.bias += torch.tensor(5.0)
        torch.testing.assert_close(
            net.values(net.encode(window), view, target), before, atol=1e-4, rtol=1e-4
        )
        net.value_head.state.bias += 2.0
        after = net.values(net.encode(window), view, target)
    torch.testing.assert_close(after[:, :-1], before[:, :-1] + 2, atol=1e-4, rtol=1e-4)
    assert not after[:, -1].any()


def test_the_target_is_heard() -> None:
    net = network()
    window, maps, view, _ = inputs(2)
    first, second = (everything(net, window, maps, view, torch.full((2,), t)) for t in (0, 1))
    for name in ("edges", "prior", "values"):
        assert not torch.allclose(first[name], second[name], atol=1e-3), name
    for name in ("full", "half", "quarter"):
        assert torch.equal(first[name], second[name])
    # The embeddings lie one after the other.
    every = net.embedding(first["full"])
    torch.testing.assert_close(first["edges"], every[:, :3], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(second["edges"], every[:, 3:], atol=1e-5, rtol=1e-4)


def test_the_value_head_learns_alone() -> None:
    net = network().train()
    head = net.learn_values()
    assert head is net.value_head
    assert not net.training
    learning = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learning
    assert all(name.startswith("value_head.") for name in learning)


def test_features_can_be_stacked_and_taken_apart() -> None:
    net = network()
    window = inputs(3)[0]
    with torch.no_grad():
        one = net.encode(window)
    joined = Features.cat([one.select(torch.tensor([n])) for n in (0, 2, 1)])
    for name in ("full", "half", "quarter"):
        expected = getattr(one, name)[[0, 2, 1]]
        assert torch.equal(getattr(joined, name), expected)


@pytest.mark.parametrize("shape", [(8, 8, 8), (16, 8, 40)])
def test_any_sides_that_are_multiples_of_eight(shape: tuple[int, int, int]) -> None:
    with torch.no_grad():
        features = network().encode(torch.zeros(1, 1, *shape))
    assert tuple(features.full.shape[2:]) == shape
    assert tuple(features.quarter.shape[2:]) == tuple(side // 4 for side in shape)
