"""A learner that has everything goes on with the same bits, whatever the step."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator, nn

from medrl.rl.optimize import optimize
from medrl.rl.schedule import one_cycle
from tests.rl.resume import assert_resumes, assert_same
from tests.rl.toy import ToyLearner, ToySettings, make_toy


@pytest.mark.parametrize("interrupt_at", [1, 4, 5, 17, 29])
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_the_same_bits(tmp_path: Path, interrupt_at: int, mixed_precision: bool) -> None:
    make = partial(make_toy, mixed_precision=mixed_precision)
    assert_resumes(make, tmp_path, interrupt_at=interrupt_at)


def test_the_toy_learns() -> None:
    learner = make_toy(steps=600)
    for _ in range(600):
        learner.train_step()
    learner.network.eval()
    goal = nn.functional.one_hot(torch.tensor([4]), 5)
    for place in range(4):
        seen = torch.cat([nn.functional.one_hot(torch.tensor([place]), 5), goal], dim=1).float()
        assert int(learner.network(seen).argmax()) == 1


@pytest.mark.parametrize(
    "part", ["evaluating", "scaler", "optimizers", "generator", "global_generator", "extra"]
)
def test_every_part_matters(part: str) -> None:
    """Left out of the state, each would change what comes: the proof can fail."""
    source, whole = (make_toy(mixed_precision=True) for _ in range(2))
    for learner in (source, whole):
        for _ in range(7):
            learner.train_step()
        learner.scaler.update(4096.0)
    other = ToyLearner(ToySettings(mixed_precision=True), seed=1)
    for _ in range(3):
        other.train_step()
    theirs = other.state_dict()[part]
    if part == "evaluating":
        theirs = {"network": []} if source.state_dict()[part]["network"] else {"network": ["0"]}
    broken = make_toy(mixed_precision=True)
    broken.load_state_dict({**source.state_dict(), part: theirs})
    with pytest.raises(AssertionError):
        assert_same(broken.state_dict(), whole.state_dict())


def test_training_mode_survives() -> None:
    one, other = make_toy(), make_toy()
    one.network.train()
    one.network[1].eval()
    other.load_state_dict(one.state_dict())
    assert [part.training for part in other.network] == [True, False, True, True, True]


def test_the_signature_is_settings_and_steps() -> None:
    signature = make_toy(batch=3).signature()
    assert signature["batch"] == 3
    assert signature["total_steps"] == 30


# Optimise step --------------------------------------------------------------------------------


def line() -> tuple[nn.Linear, torch.optim.SGD]:
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    return network, torch.optim.SGD(network.parameters(), lr=99.0)


@pytest.mark.parametrize("scaled", [False, True])
def test_a_step_by_hand(scaled: bool) -> None:
    network, optimizer = line()
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)
    loss = network(torch.tensor([[3.0, 4.0]])).sum()  # gradient (3, 4), norm 5
    optimize(loss, optimizer, learning_rate=0.1, clip=2.5, scaler=scaler)
    torch.testing.assert_close(network.weight.data, torch.tensor([[1 - 0.15, 2 - 0.2]]))
    loss = network(torch.tensor([[3.0, 4.0]])).sum()
    optimize(loss, optimizer, learning_rate=0.1, clip=100.0, scaler=scaler)
    torch.testing.assert_close(network.weight.data, torch.tensor([[0.85 - 0.3, 1.8 - 0.4]]))


def test_a_step_that_overflows_is_left_out() -> None:
    network, optimizer = line()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    loss = network(torch.tensor([[float("inf"), 0.0]])).sum()
    optimize(loss, optimizer, learning_rate=0.1, clip=1.0, scaler=scaler)
    assert network.weight.tolist() == [[1.0, 2.0]]
    assert scaler.get_scale() == 512.0


# Schedule -------------------------------------------------------------------------------------


@pytest.mark.parametrize("warmup", [0.03, 0.05])
def test_the_learning_rate_rises_and_falls(warmup: float) -> None:
    shares = [one_cycle(step, 1000, warmup=warmup) for step in range(1001)]
    rise = round(1000 * warmup)
    assert shares[0] == pytest.approx(1 / rise)
    assert max(shares) == pytest.approx(1)
    assert int(np.argmax(shares)) in (rise - 1, rise)
    assert (np.diff(shares[:rise]) > 0).all()
    assert (np.diff(shares[rise:]) < 0).all()
    assert shares[(rise + 1000) // 2] == pytest.approx(0.5, abs=1e-2)
    assert shares[1000] == pytest.approx(0)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_short_training_has_a_rate_too(steps: int) -> None:
    shares = [one_cycle(step, steps) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)


def test_generators_are_the_owners() -> None:
    one = make_toy()
    assert isinstance(one.generator, Generator)
    before = one.generator.get_state()
    torch.rand(3)
    assert torch.equal(one.generator.get_state(), before)
