"""Whole searches with networks that know the answer, for transforms that spell themselves."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from medrl.registration.dynamics import UNSEEN, RegistrationDynamics, fixed_window
from medrl.registration.network import Decision, LevelSettings, target_distribution
from medrl.registration.search import SearchSettings, orientations, search, starting_points
from medrl.registration.similarity import similarity
from medrl.registration.transforms import (
    about,
    compose,
    constrain,
    decompose,
    move,
    rotation_vector,
)
from medrl.trajectory import Step
from medrl.volume.pyramid import Pyramid

PIVOT = torch.tensor([[20.0, -35.0, 110.0]], dtype=torch.float64)
COARSE = LevelSettings(spacing=8.0, window=4)
FINE = LevelSettings(spacing=4.0, window=4)
POINTS = PIVOT + 50 * torch.from_numpy(np.random.default_rng(0).normal(size=(30, 3)))


class Spelled(RegistrationDynamics):
    """Agents see their own transform."""

    def look(self, transforms: torch.Tensor) -> torch.Tensor:
        return transforms


def dynamics(level: LevelSettings) -> RegistrationDynamics:
    return Spelled(level, torch.zeros(0), (), torch.zeros(0), PIVOT)


class Oracle:
    """Knows the right transform; ``stride`` of its steps, and honest about how far off it is."""

    def __init__(self, truth: torch.Tensor, level: LevelSettings, stride: float = 1.0) -> None:
        self.truth = truth
        self.level = level
        self.stride = stride
        self.memories: list[torch.Tensor] = []

    def blank(self, count: int) -> torch.Tensor:
        return torch.zeros((count, 3))

    def __call__(self, transforms: torch.Tensor, memory: torch.Tensor | None = None) -> Decision:
        if memory is not None:
            self.memories.append(memory)
        left = about(torch.linalg.inv(transforms) @ self.truth, -PIVOT)
        wanted = self.stride * decompose(left)
        logits = target_distribution(wanted, self.level.steps).log()
        apart = move(transforms, POINTS) - move(self.truth, POINTS)
        error = apart.norm(dim=-1).mean(dim=-1).log1p()
        old = self.blank(len(transforms)) if memory is None else memory
        # Memory is where the agent has been first, and how often it was asked.
        first = transforms[:, :2, 3].float()
        first = torch.where(old[:, 2:] > 0, old[:, :2], first)
        return Decision(logits, error * 0, error, -error, torch.cat([first, old[:, 2:] + 1], dim=1))


def truth(seed: int, kind: str = "rigid") -> torch.Tensor:
    rng = np.random.default_rng(seed)
    parameters = np.zeros(12)
    parameters[:3] = rng.uniform(-60, 60, 3)
    parameters[6:] = rng.uniform(-20, 20, 6)
    matrix = compose(constrain(torch.from_numpy(parameters), kind))
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    matrix[:3, :3] = turn @ matrix[:3, :3]
    return about(matrix, PIVOT[0])


def oracles(answer: torch.Tensor, **options: float) -> list[tuple[Oracle, RegistrationDynamics]]:
    return [(Oracle(answer, level, **options), dynamics(level)) for level in (COARSE, FINE)]


def starts(answer: torch.Tensor) -> torch.Tensor:
    """Centres of the scans are 20 mm wrong."""
    moving = move(answer, PIVOT)[0] + torch.tensor([10.0, -15.0, 8.0])
    return starting_points(PIVOT[0], moving)


def millimetres(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((move(a, POINTS) - move(b, POINTS)).norm(dim=1).mean())


def settings(**options: Any) -> SearchSettings:
    """The network's own word decides."""
    return SearchSettings(**({"judge": "error"} | options))


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_an_oracle_is_led_to_any_answer(kind: str, lookahead: bool) -> None:
    for seed in range(3):
        answer = truth(seed, kind)
        found = search(
            oracles(answer), starts(answer), kind=kind, settings=settings(lookahead=lookahead)
        )[0]
        assert millimetres(found.transforms[-1], answer) < 0.5
        assert float(found.errors[-1]) == pytest.approx(
            millimetres(found.transforms[-1], answer), abs=1e-6
        )


def test_agents_change_only_what_they_may() -> None:
    answer = truth(0, "affine")
    for kind in ("rigid", "similarity"):
        for walk in search(oracles(answer), starts(answer), kind=kind, settings=settings()):
            linear = walk.transforms[:, :3, :3]
            size = torch.linalg.det(linear) ** (2 / 3)
            if kind == "rigid":
                torch.testing.assert_close(size, torch.ones_like(size))
            else:
                assert float((size - 1).abs().max()) > 0.01
            expected = torch.eye(3).double() * size[:, None, None]
            torch.testing.assert_close(linear @ linear.mT, expected, atol=1e-9, rtol=0)


def test_walks_are_those_of_the_best_agents() -> None:
    answer = truth(1)
    begin = starts(answer)
    pairs = oracles(answer)
    probes = ((16.0, 8.0, 4.0), (3.0, 1.0))
    walks = search(pairs, begin, kind="rigid", settings=settings(probes=probes, keep=(6, 2)))
    assert len(walks) == 2
    # Up to half go home after every step.
    assert [len(memory) for memory in pairs[0][0].memories] == [24, 12, 6]
    assert [len(memory) for memory in pairs[1][0].memories] == [6, 3]
    assert walks[0].merit >= walks[1].merit
    for walk in walks:
        assert (walk.transforms[0] == begin[walk.start]).all()
        assert walk.transforms.shape == (4 + 3, 4, 4)
        assert walk.spacings.tolist() == [8.0] * 4 + [4.0] * 3
        expected = [millimetres(transform, answer) for transform in walk.transforms]
        np.testing.assert_allclose(walk.errors.numpy(), expected)
        # Whoever looks ahead never goes where it is worse.
        assert (np.diff(expected) <= 1e-9).all()
        assert walk.merit == pytest.approx(-np.log1p(expected[-1]))


def test_those_who_go_on_are_the_best_of_all() -> None:
    answer = truth(5)
    begin = starts(answer)
    still = settings(probes=((1.0,),), keep=(24,), lookahead=False, memory=(False,))
    ignorant = [(Oracle(answer, COARSE, stride=0.0), dynamics(COARSE))]
    everyone = search(ignorant, begin, kind="rigid", settings=still)
    by_error = sorted(range(24), key=lambda n: millimetres(begin[n], answer))
    assert [walk.start for walk in everyone] == by_error
    few = search(ignorant, begin, kind="rigid", settings=replace(still, keep=(1,)))
    assert [walk.start for walk in few] == by_error[:1]


def test_without_lookahead_agents_take_the_networks_step() -> None:
    answer = truth(2)
    begin = starts(answer)
    scene = dynamics(COARSE)
    oracle = Oracle(answer, COARSE)
    options = settings(probes=((9.0,) * 5,), keep=(4,), lookahead=False)
    for walk in search([(oracle, scene)], begin, kind="rigid", settings=options):
        here = begin[walk.start][None]
        for step in range(5):
            torch.testing.assert_close(walk.transforms[step], here[0])
            wanted = (oracle(here).logits.softmax(dim=-1) * COARSE.steps).sum(dim=-1)
            here = scene.step(here, wanted)
        torch.testing.assert_close(walk.transforms[5], here[0])


def test_who_watches_sees_every_agent_that_is_still_there() -> None:
    answer = truth(1)
    begin = starts(answer)
    options = settings(probes=((16.0, 8.0, 4.0), (3.0, 1.0)), keep=(6, 2))
    steps: list[Step] = []
    walks = search(
        oracles(answer), begin, kind="rigid", settings=options, first=24, watch=steps.append
    )
    assert [len(step.names) for step in steps] == [24, 12, 6, 6, 6, 3, 2]
    assert [set(step.scales_mm) for step in steps] == [{8.0}] * 4 + [{4.0}] * 3
    pivot = np.append(PIVOT[0].numpy(), 1)
    for step in steps:
        assert step.names == tuple(f"start {number}" for number in step.starts)
        assert (step.actions == -1).all()
        np.testing.assert_allclose(step.positions_world, (step.transforms @ pivot)[:, :3])
        wrong = [millimetres(torch.from_numpy(one), answer) for one in step.transforms]
        np.testing.assert_allclose(step.values, -np.log1p(wrong))
    np.testing.assert_array_equal(steps[0].transforms, begin.numpy())
    assert steps[0].starts.tolist() == list(range(24, 48))
    # Nobody comes back, and those who are left are the best of those before.
    for before, after in pairwise(steps):
        assert set(after.starts) <= set(before.starts)
    for walk in walks:
        seen = [step.transforms[step.starts.tolist().index(walk.start)] for step in steps]
        np.testing.assert_array_equal(seen, walk.transforms.numpy())


def test_who_watches_changes_nothing() -> None:
    answer = truth(4)
    begin = starts(answer)

    def spoil(step: Step) -> None:
        step.transforms[:], step.values[:], step.positions_world[:] = 0, 0, 0

    alone, watched = (
        search(oracles(answer), begin, kind="rigid", settings=settings(), watch=watch)[0]
        for watch in (None, spoil)
    )
    assert (alone.transforms == watched.transforms).all()
    assert (alone.merit, alone.start) == (watched.merit, watched.start)


def test_who_watches_can_end_it() -> None:
    answer = truth(1)
    pairs = oracles(answer)
    steps: list[Step] = []

    def enough(step: Step) -> None:
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(pairs, starts(answer), kind="rigid", settings=settings(), watch=enough)
    assert len(pairs[0][0].memories) == 2
    assert not pairs[1][0].memories


def test_memory_stays_with_its_agent_and_ends_with_the_level() -> None:
    answer = truth(3)
    begin = starts(answer)
    pairs = oracles(answer)
    options = settings(probes=((8.0,) * 6, (2.0,) * 3), keep=(5, 2))
    search(pairs, begin, kind="rigid", settings=options)
    coarse, fine = (oracle.memories for oracle, _ in pairs)
    assert [int(memory[0, 2]) for memory in coarse] == list(range(6))
    assert [int(memory[0, 2]) for memory in fine] == list(range(3))
    # Rows that went on remember where they began: each at a start of its own.
    began = {tuple(row) for row in coarse[-1][:, :2].tolist()}
    possible = {tuple(row) for row in begin[:, :2, 3].float().tolist()}
    assert len(began) == len(coarse[-1])
    assert began < possible


def test_levels_without_memory_are_asked_without() -> None:
    answer = truth(3)
    pairs = oracles(answer)
    search(pairs, starts(answer), kind="rigid", settings=settings(memory=(False, True)))
    assert not pairs[0][0].memories
    assert pairs[1][0].memories


def test_lookahead_takes_the_length_that_the_judge_likes() -> None:
    """Agents that step twice as far as they should go nowhere, unless they look ahead."""
    answer = about(compose(torch.tensor([5.0, -3, 4, 8, 5, -6, *[0] * 6]).double()), PIVOT[0])
    begin = torch.eye(4, dtype=torch.float64)[None]
    ends = []
    for lookahead in (False, True):
        options = settings(probes=((9.0,), (9.0,)), lookahead=lookahead)
        found = search(oracles(answer, stride=2.0), begin, kind="rigid", settings=options)
        ends.append(millimetres(found[0].transforms[-1], answer))
    assert ends[1] < 0.1
    assert ends[0] > 3


@pytest.mark.parametrize(
    ("kind", "left", "probes"),
    [
        ("rigid", {1: -6.0}, [6.0]),  # one parameter
        ("rigid", {0: 6.0, 1: -6.0, 2: -6.0}, [6.0]),  # those that are better, at once
        ("rigid", {4: 10.0}, [10.0]),
        ("similarity", {6: -8.0, 7: -8.0, 8: -8.0}, [8.0]),
        ("affine", {8: 5.0}, [5.0]),
        ("affine", {10: -5.0}, [5.0]),
        ("rigid", {2: 7.0}, [9.0, 9.0, 2.0]),  # away by 2, no further, back
    ],
)
def test_probes_find_what_the_network_does_not_know(
    kind: str, left: dict[int, float], probes: list[float]
) -> None:
    parameters = torch.zeros(12, dtype=torch.float64)
    for index, value in left.items():
        parameters[index] = value
    answer = about(compose(parameters), PIVOT[0])
    level = (Oracle(answer, COARSE, stride=0.0), dynamics(COARSE))
    begin = torch.eye(4, dtype=torch.float64)[None]
    for lengths in ((1.0, 0.5), ()):
        options = settings(probes=(tuple(probes),), keep=(1,), lengths=lengths)
        found = search([level], begin, kind=kind, settings=options)[0]
        torch.testing.assert_close(found.transforms[-1], answer, atol=1e-9, rtol=0)


def test_the_similarity_of_scans_leads_agents_that_know_nothing() -> None:
    """Blobs in two contrasts, 9 mm and 12 degrees apart; the network predicts no step at all."""
    side = 40
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1) * 4.0
    volume = np.zeros([side] * 3)
    for center, value in zip(rng.uniform(45, 110, (12, 3)), rng.uniform(0.3, 1.1, 12), strict=True):
        volume[np.linalg.norm(grid - center, axis=-1) < 20] = value
    volume = ndimage.gaussian_filter(volume, 1.0)
    scans = [volume, np.where(volume > 0.1, 1.2 - volume, 0.0)]
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    fixed, moving = (
        Pyramid((torch.from_numpy(one)[None].float(),), (4.0,), (affine,), UNSEEN) for one in scans
    )
    level = LevelSettings(spacing=4.0, window=24)
    to_voxel = torch.from_numpy(np.linalg.inv(affine))[None]
    pivot = torch.tensor([[78.0, 78.0, 78.0]], dtype=torch.float64)
    window = fixed_window(fixed, level, to_voxel, pivot)
    scene = RegistrationDynamics(level, window, (moving,), to_voxel, pivot)

    class Ignorant:
        def blank(self, count: int) -> torch.Tensor:
            return torch.zeros((count, 1))

        def __call__(self, windows: torch.Tensor, _: torch.Tensor | None = None) -> Decision:
            zero = torch.zeros(len(windows))
            return Decision(torch.zeros((len(windows), 12, 9)), zero, zero, zero, zero[:, None])

    off = about(compose(torch.tensor([6.0, -5, 4, 8, -6, 6, *[0] * 6]).double()), pivot[0])
    options = SearchSettings(probes=((8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5),), keep=(1,))
    found = search([(Ignorant(), scene)], off[None], kind="rigid", settings=options)[0]
    points = pivot + 40 * torch.randn((50, 3), generator=torch.Generator().manual_seed(0)).double()
    ends = torch.stack([off, found.transforms[-1]])
    before, after = (move(ends, points) - points).norm(dim=-1).mean(dim=-1)
    assert float(before) > 8
    assert float(after) < 1
    assert found.merit == pytest.approx(
        float(similarity(window, scene.look_moving(found.transforms[-1:]))[0])
    )


def entropy(counts: NDArray[np.float64]) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())


def test_similarity_is_normalised_mutual_information() -> None:
    rng = np.random.default_rng(0)
    fixed = rng.uniform(0, 1.3, (1, 1, 12, 12, 12)).astype(np.float32)
    shuffled = rng.permutation(fixed.ravel()).reshape(fixed[0].shape)
    moving = np.stack([fixed[0], 1.2 - 0.5 * fixed[0], shuffled]).astype(np.float32)
    fixed[..., :2] = UNSEEN
    moving[..., 10:, :] = UNSEEN
    found = similarity(torch.from_numpy(fixed), torch.from_numpy(moving)).numpy()
    for n in range(3):
        both = (fixed[0] >= 0) & (moving[n] >= 0)
        edges = [np.append(np.arange(16) * 0.075, 9.0)] * 2
        joint, _, _ = np.histogram2d(fixed[0][both], moving[n][both], bins=edges)
        single = entropy(joint.sum(axis=0)) + entropy(joint.sum(axis=1))
        assert found[n] == pytest.approx(single / entropy(joint.ravel()) - 1, abs=2e-3)
    assert found[0] == pytest.approx(1)
    assert found[1] > 0.7
    assert found[2] < 0.06
    # Too little of the object in view to tell.
    moving[..., 2:, :] = UNSEEN
    assert (similarity(torch.from_numpy(fixed), torch.from_numpy(moving)) == 0).all()


def test_orientations_are_the_rotations_of_the_cube() -> None:
    turns = orientations()
    assert turns.shape == (24, 3, 3)
    assert (turns[0] == torch.eye(3)).all()
    found = {tuple(turn.flatten().tolist()) for turn in turns}
    assert len(found) == 24
    products = (turns[:, None] @ turns[None]).reshape(-1, 9)
    assert {tuple((row + 0.0).tolist()) for row in products} == {
        tuple((torch.tensor(row) + 0.0).tolist()) for row in found
    }
    octahedral = Rotation.create_group("O")
    assert all(
        min((octahedral.inv() * Rotation.from_matrix(turn.numpy())).magnitude()) < 1e-6
        for turn in turns
    )


def test_no_rotation_is_far_from_an_orientation() -> None:
    drawn = torch.from_numpy(Rotation.random(3000, random_state=0).as_matrix())
    apart = rotation_vector(orientations().mT[:, None] @ drawn[None]).norm(dim=-1)
    assert 55 < float(apart.amin(dim=0).max()) <= 63


def test_starting_points_bring_centers_together() -> None:
    fixed, moving = torch.tensor([[10.0, 20, -30], [-4, 7, 100]]).double()
    found = starting_points(fixed, moving)
    assert found.dtype == torch.float64
    assert (found[:, :3, :3] == orientations()).all()
    torch.testing.assert_close(move(found, fixed[None])[:, 0], moving.expand(24, 3))
