"""Every stage of a seed training, stopped anywhere, ends with the same bits."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Generator

from medrl.rl.learner import Learner
from medrl.seednet.data import LabelledGrid
from medrl.seednet.learner import AgentLearner, AgentSettings
from medrl.seednet.model import ModelSettings, SeedModel
from medrl.seednet.perception import PerceptionLearner, PerceptionSettings
from medrl.seednet.sampling import Sampler, Sampling
from tests.rl.resume import assert_resumes, assert_survives_kill

WINDOWS = Sampling(window=(16, 16, 16), shift=2.0)
STEPS = 8


def make(stage: str, settings: ModelSettings, cases: list[LabelledGrid]) -> Learner:
    """The learner of a stage; it can be made in another process, too."""
    torch.manual_seed(0)
    network = settings.build_network()
    generator = Generator().manual_seed(0)
    sampler = Sampler(cases, WINDOWS, generator)
    if stage == "perception":
        recipe = PerceptionSettings(steps=STEPS, batch=2)
        return PerceptionLearner(network, sampler, recipe, generator=generator)
    agent = AgentSettings(
        imitation_steps=STEPS // 2, dqn_steps=STEPS // 2, windows=3, batch=4, replay=24, returns=2
    )
    return AgentLearner(SeedModel(settings, network.eval()), sampler, agent, generator=generator)


@pytest.fixture(params=["perception", "agent"])
def maker(
    request: pytest.FixtureRequest,
    make_cases: Callable[..., list[LabelledGrid]],
    settings: ModelSettings,
) -> Callable[[], Learner]:
    torch.set_num_threads(1)
    return partial(make, request.param, settings, make_cases(3))


def test_interrupted_anywhere(maker: Callable[[], Learner], tmp_path: Path) -> None:
    assert_resumes(maker, tmp_path, interrupt_at=random.Random().randrange(1, STEPS))


def test_killed_in_its_worker_process(maker: Callable[[], Learner], tmp_path: Path) -> None:
    assert_survives_kill(maker, tmp_path, kill_at=random.Random().randrange(1, STEPS - 1))
