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

from medrl.registration.dynamics import (
    UNSEEN,
    RegistrationDynamics,
    Rules,
    View,
    step_sizes,
    windows_of,
)
from medrl.registration.network import Outputs, target_distribution
from medrl.registration.search import (
    SearchSettings,
    Walk,
    halving,
    orientations,
    search,
    starting_points,
)
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
FINE, COARSE = 4.0, 8.0
POINTS = PIVOT + 50 * torch.from_numpy(np.random.default_rng(0).normal(size=(30, 3)))


class Spelled(RegistrationDynamics):
    """Agents see their own transform."""

    def look(self, level: int, pair: torch.Tensor, transform: torch.Tensor) -> torch.Tensor:
        return transform


class Oracle:
    """Knows the right transform; ``stride`` of its steps, and honest about how far off it is."""

    def __init__(self, truth: torch.Tensor, spacing: float, stride: float = 1.0) -> None:
        self.truth = truth
        self.sizes = step_sizes(spacing)
        self.stride = stride
        self.memories: list[torch.Tensor] = []

    def blank(self, count: int) -> torch.Tensor:
        return torch.zeros((count, 3))

    def __call__(self, transforms: torch.Tensor, memory: torch.Tensor | None = None) -> Outputs:
        if memory is not None:
            self.memories.append(memory)
        left = about(torch.linalg.inv(transforms) @ self.truth, -PIVOT)
        wanted = self.stride * decompose(left)
        logits = target_distribution(wanted, self.sizes).log()
        apart = move(transforms, POINTS) - move(self.truth, POINTS)
        error = apart.norm(dim=-1).mean(dim=-1).log1p()
        old = self.blank(len(transforms)) if memory is None else memory
        # Memory is where the agent has been first, and how often it was asked.
        first = transforms[:, :2, 3].float()
        first = torch.where(old[:, 2:] > 0, old[:, :2], first)
        return Outputs(logits, error, -error, torch.cat([first, old[:, 2:] + 1], dim=1))


def truth(seed: int, kind: str = "rigid") -> torch.Tensor:
    rng = np.random.default_rng(seed)
    parameters = np.zeros(12)
    parameters[:3] = rng.uniform(-60, 60, 3)
    parameters[6:] = rng.uniform(-20, 20, 6)
    matrix = compose(constrain(torch.from_numpy(parameters), kind))
    turn = torch.from_numpy(Rotation.random(random_state=seed).as_matrix())
    matrix[:3, :3] = turn @ matrix[:3, :3]
    return about(matrix, PIVOT[0])


def find(
    answer: torch.Tensor,
    begin: torch.Tensor,
    options: SearchSettings,
    *,
    kind: str = "rigid",
    stride: float = 1.0,
    **told: Any,
) -> tuple[list[Walk], list[Oracle]]:
    """Search with oracles of as many levels as there are candidate steps."""
    spacings = (FINE, COARSE)[-len(options.candidate_steps) :]
    oracles = [Oracle(answer, spacing, stride) for spacing in spacings]
    nothing = torch.zeros((1, 1, 1, 1, 1))
    views = [View(spacing, nothing, (), torch.zeros((1, 4, 4))) for spacing in spacings]
    schedule = tuple(map(len, options.candidate_steps))
    dynamics = Spelled(views, PIVOT, Rules(kind=kind, max_steps=schedule))
    return search(dynamics, oracles, begin, settings=options, **told), oracles


def starts(answer: torch.Tensor) -> torch.Tensor:
    """Centres of the scans are 20 mm wrong."""
    moving = move(answer, PIVOT)[0] + torch.tensor([10.0, -15.0, 8.0])
    return starting_points(PIVOT[0], moving)


def millimetres(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((move(a, POINTS) - move(b, POINTS)).norm(dim=1).mean())


def settings(**options: Any) -> SearchSettings:
    """The network's own word decides."""
    return SearchSettings(**({"scorer": "error"} | options))


#: Two steps on the fine level after three on the coarse one.
SHORT = ((3.0, 1.0), (16.0, 8.0, 4.0))


@pytest.mark.parametrize("lookahead", [False, True])
@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_an_oracle_is_led_to_any_answer(kind: str, lookahead: bool) -> None:
    for seed in range(3):
        answer = truth(seed, kind)
        options = settings(lookahead=lookahead)
        (found,), _ = find(answer, starts(answer), options, kind=kind)
        wrong = millimetres(found.transform_world, answer)
        assert wrong < 0.5
        assert found.score == pytest.approx(-wrong, abs=1e-6)


def test_agents_change_only_what_they_may() -> None:
    answer = truth(0, "affine")
    for kind in ("rigid", "similarity"):
        for walk in find(answer, starts(answer), settings(), kind=kind)[0]:
            linear = torch.from_numpy(walk.path.transforms)[:, :3, :3]
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
    walks, (fine, coarse) = find(answer, begin, settings(candidate_steps=SHORT, keep=(2, 6)))
    assert len(walks) == 2
    # Up to half go home after every step.
    assert [len(memory) for memory in coarse.memories] == [24, 12, 6]
    assert [len(memory) for memory in fine.memories] == [6, 3]
    assert walks[0].score >= walks[1].score
    for walk in walks:
        path = walk.path
        assert (path.transforms[0] == begin[path.start].numpy()).all()
        assert path.transforms.shape == (3 + 2 + 1, 4, 4)
        assert (path.transforms[-1] == walk.transform_world.numpy()).all()
        assert path.scales_mm.tolist() == [8.0] * 3 + [4.0] * 3
        assert (path.outcome, path.value_unit) == ("out of steps", "mm, negative")
        expected = [millimetres(torch.from_numpy(one), answer) for one in path.transforms]
        np.testing.assert_allclose(-path.values, expected, atol=1e-9)
        # Whoever looks ahead never goes where it is worse.
        assert (np.diff(expected) <= 1e-9).all()
        assert walk.score == pytest.approx(-expected[-1])


def test_those_who_go_on_are_the_best_of_all() -> None:
    answer = truth(5)
    begin = starts(answer)
    still = settings(candidate_steps=((1.0,),), keep=(24,), lookahead=False, memory=(False,))
    everyone, _ = find(answer, begin, still, stride=0.0)
    by_error = sorted(range(24), key=lambda n: millimetres(begin[n], answer))
    assert [walk.path.start for walk in everyone] == by_error
    few, _ = find(answer, begin, replace(still, keep=(1,)), stride=0.0)
    assert [walk.path.start for walk in few] == by_error[:1]


def test_half_of_the_agents_go_on_and_as_many_as_are_kept() -> None:
    beam = halving((2, 4), (1, 5))
    left, counts = 24, []
    for index in range(6):
        left = min(left, beam(index, left))
        counts.append(left)
    assert counts == [12, 6, 5, 5, 2, 1]


def test_without_lookahead_agents_take_the_networks_step() -> None:
    answer = truth(2)
    begin = starts(answer)
    options = settings(candidate_steps=((9.0,) * 5,), keep=(4,), lookahead=False)
    walks, (oracle,) = find(answer, begin, options)
    for walk in walks:
        here = begin[walk.path.start][None]
        for step in range(5):
            torch.testing.assert_close(torch.from_numpy(walk.path.transforms[step]), here[0])
            wanted = (oracle(here).logits.softmax(dim=-1) * step_sizes(COARSE)).sum(dim=-1)
            here = here @ about(compose(constrain(wanted, "rigid")), PIVOT)
        torch.testing.assert_close(walk.transform_world, here[0])


def test_who_watches_sees_every_agent_that_is_still_there() -> None:
    answer = truth(1)
    begin = starts(answer)
    options = settings(candidate_steps=SHORT, keep=(2, 6))
    steps: list[Step] = []
    walks, _ = find(answer, begin, options, first=24, watch=steps.append)
    assert [len(step.names) for step in steps] == [24, 12, 6, 6, 3, 2]
    assert [set(step.scales_mm) for step in steps] == [{8.0}] * 3 + [{4.0}] * 3
    pivot = np.append(PIVOT[0].numpy(), 1)
    for step in steps:
        assert step.names == tuple(f"start {number}" for number in step.starts)
        np.testing.assert_allclose(step.positions_world, (step.transforms @ pivot)[:, :3])
        wrong = [millimetres(torch.from_numpy(one), answer) for one in step.transforms]
        np.testing.assert_allclose(step.values, -np.array(wrong), atol=1e-9)
        assert step.value_unit == "mm, negative"
    np.testing.assert_array_equal(steps[0].transforms, begin.numpy())
    assert steps[0].starts.tolist() == list(range(24, 48))
    # Nobody comes back, and those who are left are the best of those before.
    for before, after in pairwise(steps):
        assert set(after.starts) <= set(before.starts)
    for walk in walks:
        path = walk.path
        rows = [step.starts.tolist().index(path.start) for step in steps]
        seen = [step.transforms[row] for step, row in zip(steps, rows, strict=True)]
        np.testing.assert_array_equal(seen, path.transforms)
        # One meaning of the value, live and saved.
        values = [step.values[row] for step, row in zip(steps, rows, strict=True)]
        np.testing.assert_array_equal(values, path.values)


def test_who_watches_changes_nothing() -> None:
    answer = truth(4)
    begin = starts(answer)

    def spoil(step: Step) -> None:
        step.transforms[:], step.positions_world[:] = 0, 0

    alone, watched = (find(answer, begin, settings(), watch=w)[0][0] for w in (None, spoil))
    assert (alone.transform_world == watched.transform_world).all()
    assert (alone.score, alone.path.start) == (watched.score, watched.path.start)


def test_who_watches_can_end_it() -> None:
    steps: list[Step] = []

    def enough(step: Step) -> None:
        steps.append(step)
        if len(steps) == 3:
            raise KeyboardInterrupt

    answer = truth(1)
    with pytest.raises(KeyboardInterrupt):
        find(answer, starts(answer), settings(), watch=enough)
    assert len(steps) == 3


def test_memory_stays_with_its_agent_and_ends_with_the_level() -> None:
    answer = truth(3)
    begin = starts(answer)
    options = settings(candidate_steps=((2.0,) * 3, (8.0,) * 6), keep=(2, 5))
    _, (fine, coarse) = find(answer, begin, options)
    assert [int(memory[0, 2]) for memory in coarse.memories] == list(range(6))
    assert [int(memory[0, 2]) for memory in fine.memories] == list(range(3))
    # Rows that went on remember where they began: each at a start of its own.
    began = {tuple(row) for row in coarse.memories[-1][:, :2].tolist()}
    possible = {tuple(row) for row in begin[:, :2, 3].float().tolist()}
    assert len(began) == len(coarse.memories[-1])
    assert began < possible


def test_levels_without_memory_are_asked_without() -> None:
    answer = truth(3)
    _, (fine, coarse) = find(answer, starts(answer), settings(memory=(True, False)))
    assert not coarse.memories
    assert fine.memories


def test_lookahead_takes_the_share_that_scores_best() -> None:
    """Agents that step twice as far as they should go nowhere, unless they look ahead."""
    answer = about(compose(torch.tensor([5.0, -3, 4, 8, 5, -6, *[0] * 6]).double()), PIVOT[0])
    begin = torch.eye(4, dtype=torch.float64)[None]
    ends = []
    for lookahead in (False, True):
        options = settings(candidate_steps=((9.0,), (9.0,)), lookahead=lookahead)
        (found,), _ = find(answer, begin, options, stride=2.0)
        ends.append(millimetres(found.transform_world, answer))
    assert ends[1] < 0.1
    assert ends[0] > 3


@pytest.mark.parametrize(
    ("kind", "left", "sizes"),
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
def test_candidate_steps_find_what_the_network_does_not_know(
    kind: str, left: dict[int, float], sizes: list[float]
) -> None:
    parameters = torch.zeros(12, dtype=torch.float64)
    for index, value in left.items():
        parameters[index] = value
    answer = about(compose(parameters), PIVOT[0])
    begin = torch.eye(4, dtype=torch.float64)[None]
    for shares in ((1.0, 0.5), ()):
        options = settings(candidate_steps=(tuple(sizes),), keep=(1,), shares=shares)
        (found,), _ = find(answer, begin, options, kind=kind, stride=0.0)
        torch.testing.assert_close(found.transform_world, answer, atol=1e-9, rtol=0)


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
    to_voxel = torch.from_numpy(np.linalg.inv(affine))[None]
    pivot = torch.tensor([[78.0, 78.0, 78.0]], dtype=torch.float64)
    window = windows_of((fixed,), to_voxel, pivot, 4.0, 24)
    steps = (8.0, 4.0, 4.0, 2.0, 2.0, 1.0, 1.0, 0.5, 0.5)
    view = View(4.0, window, (moving,), to_voxel)
    dynamics = RegistrationDynamics([view], pivot, Rules(max_steps=len(steps)))

    class Ignorant:
        def blank(self, count: int) -> torch.Tensor:
            return torch.zeros((count, 1))

        def __call__(self, windows: torch.Tensor, _: torch.Tensor | None = None) -> Outputs:
            zero = torch.zeros(len(windows))
            return Outputs(torch.zeros((len(windows), 12, 9)), zero, zero, zero[:, None])

    off = about(compose(torch.tensor([6.0, -5, 4, 8, -6, 6, *[0] * 6]).double()), pivot[0])
    options = SearchSettings(candidate_steps=(steps,), keep=(1,))
    (found,) = search(dynamics, [Ignorant()], off[None], settings=options)
    points = pivot + 40 * torch.randn((50, 3), generator=torch.Generator().manual_seed(0)).double()
    ends = torch.stack([off, found.transform_world])
    before, after = (move(ends, points) - points).norm(dim=-1).mean(dim=-1)
    assert float(before) > 8
    assert float(after) < 1
    none = torch.zeros(1, dtype=torch.int64)
    seen = dynamics.look_moving(0, none, found.transform_world[None])
    assert found.score == pytest.approx(float(similarity(window, seen)[0]))
    # Pairs of their own are compared each with its own.
    both = similarity(torch.cat([window, window.flip(2)]), torch.cat([seen, seen]))
    alone = torch.cat([similarity(window, seen), similarity(window.flip(2), seen)])
    torch.testing.assert_close(both, alone)


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
