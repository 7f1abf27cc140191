"""A session, as one works with it: the mask is where it should be, the user has the last word."""

from contextlib import suppress
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor

from medrl.errors import MedrlError
from medrl.seednet.data import dice
from medrl.seednet.seeds import Seed
from medrl.seednet.session import SeedSession
from medrl.volume.channels import Channel
from medrl.volume.itk import to_sitk

GRIDS = ("straight", "flipped", "finer, anisotropic", "coarser", "oblique", "permuted")


def xyz(*values: float) -> np.ndarray:
    return np.array(values)


def snapshot(session: SeedSession):
    """All that a user can see."""
    done = any(seed.label for seed in session.seeds)
    return (
        session.objects,
        session.current,
        [(s.points_world.tolist(), s.label, s.who) for s in session.seeds],
        session.can_undo,
        session.can_redo,
        session.probability().numpy().tolist() if done else None,
    )


def ball(scan: MetaTensor, center, radius: float) -> np.ndarray:
    """Where the ball is, by nibabel's mapping."""
    shape = scan.shape[1:]
    voxel = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    world = nib.affines.apply_affine(np.asarray(scan.affine), voxel)
    return np.linalg.norm(world - center, axis=-1) <= radius


@pytest.mark.parametrize("grid", GRIDS)
def test_the_mask_lands_where_it_should(model, make_scan, grid: str):
    scan = make_scan(grid)
    session = SeedSession(model)
    session.set_scan(scan)
    session.add_seed(make_scan.center + xyz(0, 0, 5), "fg")
    bright = session.mask()
    placed = session.accept_all()
    mask = session.mask()
    assert tuple(mask.shape) == tuple(scan.shape)
    np.testing.assert_array_equal(mask.affine, scan.affine)
    truth = ball(scan, make_scan.center, make_scan.radius)
    assert placed
    assert dice(bright[0], truth) < 0.9
    # Surface voxels of a small ball on another grid are worth some per cent.
    assert dice(mask[0], truth) > (0.8 if grid == "coarser" else 0.88)

    # SimpleITK, which thinks in LPS, agrees on where it is.
    image = to_sitk(MetaTensor(mask.as_tensor().float(), affine=mask.affine))
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.Cast(image, sitk.sitkUInt8))
    middle = np.array(statistics.GetCentroid(1)) * (-1, -1, 1)
    assert np.linalg.norm(middle - make_scan.center) < 1.5


def test_a_model_that_is_coarser_than_the_scan(make_model, make_scan):
    """A sarcoma's geometry: 4 mm, next to the voxels of a CT."""
    session = SeedSession(make_model(spacing=4.0, half_width=8))
    scan = make_scan("CT", radius=24.0, dim=False)
    session.set_scan(scan)
    session.add_seed(make_scan.center, "fg")
    session.accept_all()
    mask = session.mask()
    assert dice(mask[0], ball(scan, make_scan.center, 24.0)) > 0.85
    where = nib.affines.apply_affine(np.asarray(scan.affine), np.argwhere(mask[0].numpy()))
    assert np.linalg.norm(where.mean(axis=0) - make_scan.center) < 2


@pytest.mark.parametrize("grid", GRIDS)
def test_a_users_seed_always_wins(model, make_scan, grid: str):
    scan = make_scan(grid)
    session = SeedSession(model)
    session.set_scan(scan)
    inverse = np.linalg.inv(np.asarray(scan.affine))
    rng = np.random.default_rng(0)
    session.add_seed(make_scan.center, "fg")
    for _ in range(4):
        for label, reach in (("fg", 24.0), ("bg", 8.0)):
            point = make_scan.center + rng.uniform(-reach, reach, 3)
            # Not those that happen to lie in the same voxel or beyond the scan.
            with suppress(MedrlError):
                session.add_seed(point, label)
    assert len(session.seeds) > 6
    session.accept_all()
    mask = session.mask()[0]
    for seed in session.seeds:
        if seed.who == "user":
            voxel = nib.affines.apply_affine(inverse, seed.position_world)
            assert mask[tuple(np.floor(voxel + 0.5).astype(int))] == seed.label


def test_scribbles_run_straight_on_any_axis(session, make_scan):
    center = make_scan.center
    path = [center + xyz(0, 0, 6), center + xyz(0, 20, 12), center + xyz(-18, 20, 12)]
    session.add_seed(path, "fg")
    assert session.seeds[0].is_scribble
    mask = session.mask()
    affine = np.linalg.inv(np.asarray(mask.affine))
    for start, end in pairwise(path):
        for t in np.linspace(0, 1, 50):
            voxel = nib.affines.apply_affine(affine, start + t * (end - start))
            # A voxel's corner may be cut; its neighbour is then on the line.
            near = tuple(slice(int(np.floor(v)), int(np.floor(v)) + 2) for v in voxel)
            assert mask[0][near].any()
    with pytest.raises(MedrlError, match="same voxel"):
        session.add_seed(center + xyz(0, 10, 9), "bg")


def test_undo_and_redo_of_everything(session, make_scan):
    center = make_scan.center
    steps = [
        lambda: session.add_seed(center, "fg"),
        lambda: (session.propose(), session.reject()),
        lambda: (session.propose(), session.accept()),
        lambda: session.add_seed(center + xyz(0, 0, -10), "bg"),
        lambda: session.accept_all(),
        lambda: session.set_limits([center - 10, center + 12]),
        lambda: session.edit(session.mask()[0].numpy() * (np.indices((30, 32, 28))[0] > 16), "bg"),
        lambda: session.remove_seed(1),
        lambda: session.set_limits(None),
    ]
    seen = []
    for step in steps:
        step()
        seen.append(snapshot(session))
    undone = []
    for _ in steps[1:]:
        session.undo()
        undone.append(snapshot(session))
    for there, back in zip(seen[-2::-1], undone, strict=True):
        assert there[:3] == back[:3]
        assert there[5] == back[5]
    session.undo()
    assert not session.can_undo
    assert session.seeds == ()
    with pytest.raises(MedrlError, match="nothing to undo"):
        session.undo()
    for there in seen:
        session.redo()
        again = snapshot(session)
        assert there[:3] == again[:3]
        assert there[5] == again[5]
    with pytest.raises(MedrlError, match="nothing to redo"):
        session.redo()
    session.undo()
    session.add_seed(center + xyz(4, 0, 0), "fg")
    assert not session.can_redo


def test_proposals_are_kept_apart(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    before = snapshot(session)
    proposal = session.propose()
    assert proposal is not None
    assert proposal.expected_gain > 0
    assert proposal.label == 1
    # The agent sees the dim part, which the prior overlooks.
    assert proposal.position_world[2] < make_scan.center[2]
    assert snapshot(session) == before
    assert np.array_equal(session.propose().position_world, proposal.position_world)
    session.accept()
    assert [seed.who for seed in session.seeds] == ["user", "agent"]
    np.testing.assert_allclose(session.seeds[1].position_world, proposal.position_world)
    assert session.seeds[1].expected_gain == pytest.approx(proposal.expected_gain)


def test_a_rejection_holds_until_the_user_changes_something_there(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    rejected = []
    while (proposal := session.propose()) is not None:
        for other in rejected:
            distance = np.linalg.norm(proposal.position_world - other.position_world)
            assert proposal.label != other.label or distance > 8
        rejected.append(proposal)
        session.reject()
        assert len(rejected) < 60
    assert len(rejected) > 2
    assert session.accept_all() == ()

    # Far from the rejected proposals: they stay rejected, although the agent begins anew.
    session.add_seed(make_scan.center + xyz(0, 0, 8), "fg")
    assert session.propose() is None
    # A seed next to one, that says nothing about the rest, lifts that one only.
    place = rejected[0].position_world
    session.add_seed(place + xyz(0, 0, 6), "fg")
    again = session.propose()
    assert again is None or np.linalg.norm(again.position_world - place) <= 8
    work = session._objects[session.current].obj
    assert len(work.rejected) < len(rejected)


def test_an_agents_seed_that_contradicts_the_user_goes(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    session.accept_all()
    agents = [seed for seed in session.seeds if seed.who == "agent"]
    wrong = agents[0]
    session.add_seed(wrong.position_world + xyz(2, 0, 0), "bg")
    left = [seed for seed in session.seeds if seed.who == "agent"]
    assert wrong not in left
    far = [s for s in agents if np.linalg.norm(s.position_world - wrong.position_world) > 10]
    assert all(seed in left for seed in far)
    proposals = session.accept_all()
    for proposal in proposals:
        near = np.linalg.norm(proposal.position_world - wrong.position_world - xyz(2, 0, 0)) <= 6
        assert not (near and proposal.label == 1)


def test_removing_seeds(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    only = session.probability()
    session.add_seed(make_scan.center + xyz(0, 0, -9), "fg")
    session.remove_seed(1)
    # The segmenter goes on from where it stood: the same within its tolerance.
    torch.testing.assert_close(session.probability(), only, atol=0.02, rtol=0)
    session.accept_all()
    before = session.seeds
    place = before[1].position_world
    session.remove_seed(1)
    assert session.seeds == (before[0], *before[2:])
    proposal = session.propose()
    assert proposal is None or np.linalg.norm(proposal.position_world - place) > 8
    session.remove_seed(0)
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        session.mask()


def test_moving_a_seed(session, make_scan):
    center = make_scan.center
    session.add_seed(center, "fg")
    session.add_seed(center + xyz(0, 20, 0), "bg")
    before = session.mask()
    there = np.array([center + xyz(4, 0, 0), center + xyz(8, 0, 0)])
    session.move_seed(0, there)
    np.testing.assert_array_equal(session.seeds[0].points_world, there)
    assert [seed.label for seed in session.seeds] == [1, 0]
    again = SeedSession(session.model)
    again.set_scan(make_scan())
    again.add_seeds(session.seeds)
    assert float((again.mask() != session.mask()).sum()) < 5
    session.undo()
    assert torch.equal(session.mask(), before)
    for index, point, message in (
        (2, center, "no seed 2 of yours"),
        (1, center, "same voxel"),
        (0, center + 500, "outside the scan"),
    ):
        with pytest.raises(MedrlError, match=message):
            session.move_seed(index, point)
    assert torch.equal(session.mask(), before)


def test_the_agents_budget_begins_anew_after_a_correction(make_model, make_scan):
    session = SeedSession(make_model(max_seeds=2))
    session.set_scan(make_scan())
    session.add_seed(make_scan.center, "fg")
    assert len(session.accept_all()) == 2
    assert session.outcome() == "spent its seeds"
    session.add_seed(make_scan.center + xyz(0, 0, 9), "fg")
    assert session.outcome() == "placing"
    session.accept_all(max_seeds=0)
    assert session.outcome() == "placing"


def test_edits_stay(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    session.accept_all()
    index = np.indices((30, 32, 28))
    plane = (index[0] == 15) & (session.mask()[0].numpy() > 0)
    session.edit(plane, "bg")
    corner = np.zeros_like(plane)
    corner[:2, :2, :2] = True
    session.edit(corner, "fg")
    session.add_seed(make_scan.center + xyz(4, 0, 4), "fg")
    session.accept_all()
    mask = session.mask()[0].numpy()
    own = np.floor(
        nib.affines.apply_affine(np.linalg.inv(session.mask().affine), make_scan.center) + 0.5
    ).astype(int)
    plane[tuple(own)] = False
    assert not mask[plane].any()
    assert mask[corner].all()
    # A seed counts more than an edit.
    assert mask[tuple(own)] == 1


def test_limits(session, make_scan):
    center = make_scan.center
    session.set_limits([center + xyz(20, 20, 20), center + xyz(-20, -20, 2)])
    session.add_seed(center + xyz(0, 0, 5), "fg")
    session.accept_all()
    mask = session.mask()
    where = nib.affines.apply_affine(np.asarray(mask.affine), np.argwhere(mask[0].numpy()))
    assert where[:, 2].min() >= center[2] + 2
    assert all(seed.position_world[2] >= center[2] + 2 for seed in session.seeds)
    before = snapshot(session)
    with pytest.raises(MedrlError, match="outside the limits"):
        session.add_seed(center - xyz(0, 0, 5), "bg")
    with pytest.raises(MedrlError, match="outside the limits"):
        session.set_limits([center - 20, center - 5])
    with pytest.raises(MedrlError, match="two opposite corners"):
        session.set_limits([1, 2, 3])
    assert snapshot(session) == before


def test_the_window_grows_with_the_object(make_model, make_scan):
    """A long object in a scan that is larger than the window."""
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    shape = (60, 24, 24)
    volume = torch.full((1, *shape), -110.0)
    volume[:, 4:56, 8:16, 8:16] = 190.0
    session = SeedSession(make_model(half_width=8))
    session.set_scan(MetaTensor(volume, affine=torch.from_numpy(affine)))
    session.add_seed((20.0, 24, 24), "fg")
    # Four times the half width at most: 32 voxels of the 52; nothing to gain across.
    box = session._objects[session.current].obj.box
    assert [b - a for a, b in zip(*box, strict=True)] == [32, 16, 16]
    mask = session.mask()[0].bool()
    truth = volume[0] > 0
    assert not (mask & ~truth).any()
    assert (mask & truth).sum() > 27 / 52 * truth.sum()

    before = snapshot(session)
    with pytest.raises(MedrlError, match=r"mm apart.*start a new object"):
        session.add_seed((108.0, 24, 24), "fg")
    assert snapshot(session) == before
    # A background seed may lie anywhere.
    session.add_seed((112.0, 24, 24), "bg")
    assert session.mask()[0, 56, 12, 12] == 0
    # Without growing, the same scan in one window gives the same mask there.
    whole = SeedSession(make_model(half_width=16))
    whole.set_scan(MetaTensor(volume, affine=torch.from_numpy(affine)))
    whole.add_seed((20.0, 24, 24), "fg")
    assert torch.equal(whole.mask()[0, 6:20], session.mask()[0, 6:20])


def test_a_neighbour_at_the_windows_face_does_not_make_it_grow(make_model):
    volume = torch.full((1, 60, 24, 24), -110.0)
    volume[:, 28:33, 8:16, 8:16] = 190.0
    volume[:, 36:50, 8:16, 8:16] = 190.0
    session = SeedSession(make_model(half_width=8))
    session.set_scan(MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])).double()))
    session.add_seed((60.0, 24, 24), "fg")
    assert session.mask()[0, 37, 12, 12] == 1
    assert session._objects[session.current].obj.box == ((22, 4, 4), (38, 20, 20))


def test_the_agents_budget_outlasts_the_window(make_model):
    """What the agent adds makes the window grow; the seeds it has left do not."""
    volume = torch.full((1, 60, 24, 24), -110.0)
    volume[:, 4:56, 8:16, 8:16] = 100.0
    volume[:, 28:33, 8:16, 8:16] = 190.0
    session = SeedSession(make_model(half_width=8, max_seeds=2))
    session.set_scan(MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 2, 2, 1])).double()))
    session.add_seed((60.0, 24, 24), "fg")
    before = session._objects[session.current].obj.box
    assert len(session.accept_all()) == 2
    assert session._objects[session.current].obj.box != before
    assert session.outcome() == "spent its seeds"


def test_a_seed_beyond_the_window_makes_it_grow(make_model, make_scan):
    session = SeedSession(make_model(half_width=8))
    session.set_scan(make_scan())
    session.add_seed(make_scan.center - xyz(0, 10, 0), "fg")
    session.accept_all()
    kept = [s.position_world for s in session.seeds if s.who == "agent"]
    first = session._objects[session.current].obj.box
    session.add_seed(make_scan.center + xyz(22, 10, 0), "fg")
    assert session._objects[session.current].obj.box != first
    mask = session.mask()
    voxel = nib.affines.apply_affine(
        np.linalg.inv(np.asarray(mask.affine)), make_scan.center + xyz(22, 10, 0)
    )
    assert mask[0][tuple(np.floor(voxel + 0.5).astype(int))] == 1
    now = [s.position_world for s in session.seeds if s.who == "agent"]
    assert kept
    np.testing.assert_allclose(now, kept)


def test_several_objects(session, make_scan):
    center = make_scan.center
    session.add_seed(center, "fg")
    assert session.objects == ("ball",)
    session.accept_all()
    first = session.mask()
    assert session.new_object(target="half") == "half"
    session.add_seed(center + xyz(20, 0, 0), "fg")
    assert session.new_object() == "ball 2"
    assert session.objects == ("ball", "half", "ball 2")
    session.switch("ball")
    assert torch.equal(session.mask(), first)
    assert len(session.seeds) > 1
    session.add_seed(center + xyz(0, 0, -10), "bg")
    session.undo()
    assert torch.equal(session.mask(), first)

    labels = session.labels()
    assert labels.meta["labels"] == {"ball": 1, "half": 2, "ball 2": 3}
    np.testing.assert_array_equal(labels.affine, first.affine)
    # Both see the same ball; the later object has it, but for the first one's seed.
    voxel = np.linalg.inv(np.asarray(first.affine)) @ [*center, 1]
    assert labels[0][tuple(np.floor(voxel[:3] + 0.5).astype(int))] == 1
    session.lock()
    assert bool(((session.labels() == 1) == (first == 1)).all())
    for change in (
        lambda: session.add_seed(center + 4, "fg"),
        lambda: session.undo(),
        lambda: session.accept_all(),
        lambda: session.remove_seed(0),
        lambda: session.edit(first[0].numpy() > 0, "bg"),
        lambda: session.set_limits(None),
    ):
        with pytest.raises(MedrlError, match="is locked"):
            change()
    assert torch.equal(session.mask(), first)
    session.lock(locked=False)
    session.undo()
    with pytest.raises(MedrlError, match="already"):
        session.new_object("half")
    with pytest.raises(MedrlError, match="no target 'liver'"):
        session.new_object(target="liver")
    with pytest.raises(MedrlError, match="no object 'liver'"):
        session.switch("liver")


def test_an_agent_that_is_watched(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    first = session.mask()
    seen = []

    def watch(step):
        # What it has placed can be seen already.
        agents = [seed for seed in session.seeds if seed.who == "agent"]
        np.testing.assert_array_equal(step.positions_world[0], agents[-1].position_world)
        assert (step.names, step.actions[0]) == (("ball",), agents[-1].label)
        assert step.values[0] == agents[-1].expected_gain
        seen.append(session.mask())

    assert len(session.accept_all(watch=watch)) == len(seen) > 2
    assert torch.equal(seen[-1], session.mask())
    session.undo()
    assert torch.equal(session.mask(), first)
    assert len(session.seeds) == 1

    def stop(step):
        if len(session.seeds) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.accept_all(watch=stop)
    assert len(session.seeds) == 3
    assert torch.equal(session.mask(), seen[1])
    session.undo()
    assert torch.equal(session.mask(), first)


def test_names_and_locks(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    session.new_object("second")
    session.rename("ball", "left")
    assert session.objects == ("left", "second")
    assert session.current == "second"
    session.rename("second", "right")
    assert session.current == "right"
    assert session.labels().meta["labels"] == {"left": 1, "right": 2}
    session.rename("right", "right")
    for new, message in (("left", "an object 'left' already"), ("", "needs a name")):
        with pytest.raises(MedrlError, match=message):
            session.rename("right", new)
    with pytest.raises(MedrlError, match="no object 'ball'"):
        session.rename("ball", "other")
    assert not session.is_locked()
    session.lock("left")
    assert session.is_locked("left")
    assert not session.is_locked()


def test_what_is_drawn_beyond_the_window(make_model, make_scan):
    session = SeedSession(make_model(half_width=8))
    scan = make_scan()
    session.set_scan(scan)
    session.add_seed(make_scan.center, "fg")
    region = np.zeros(scan.shape[1:], dtype=bool)
    region[0, 0, 0] = True
    session.edit(region, "bg")
    assert session.labels()[0, 0, 0, 0] == 0
    region[:] = False
    region[1, 15, 13] = True
    session.edit(region, "fg")
    assert session.labels()[0, 1, 15, 13] == 1
    session.undo()
    assert session.labels()[0, 1, 15, 13] == 0
    assert torch.equal(session.labels(), session.mask())


def test_trajectory(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    proposals = session.accept_all()
    trajectory = session.trajectory()
    assert trajectory.task == "seednet"
    (agent,) = trajectory.agents
    np.testing.assert_allclose(agent.positions_world, [p.position_world for p in proposals])
    assert agent.actions.tolist() == [[p.label] for p in proposals]
    np.testing.assert_allclose(agent.values, [p.expected_gain for p in proposals])
    assert set(agent.scales_mm) == {2.0}
    assert agent.outcome == session.outcome()


def test_bad_seeds_leave_the_session_as_it_was(session, make_scan):
    center = make_scan.center
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        session.mask()
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        session.propose()
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        session.labels()
    session.add_seed(center + xyz(0, 0, 10), "bg")
    with pytest.raises(MedrlError, match="place a foreground seed first"):
        session.mask()
    session.add_seed(center, "fg")
    before = snapshot(session)
    bad = {
        "outside the scan, which covers": (center + xyz(200, 0, 0), "fg"),
        "outside the scan": ([center, center + xyz(0, 0, 90)], "fg"),
        r"same voxel as the foreground seed 1": (center + 0.2, "bg"),
        "three numbers": ((1, 2), "fg"),
        "must be finite": ((1, 2, np.nan), "fg"),
        "not a label": (center, "tumour"),
        "2 is not a label": (center, 2),
    }
    for message, (point, label) in bad.items():
        with pytest.raises(MedrlError, match=message):
            session.add_seed(point, label)
    with pytest.raises(MedrlError, match="same voxel"):
        session.add_seeds([Seed(center + 6, 1), Seed(center + 6, 0)])
    for index in (-1, 2):
        with pytest.raises(MedrlError, match="no seed"):
            session.remove_seed(index)
    with pytest.raises(MedrlError, match="shape"):
        session.edit(np.ones((3, 3, 3)), "fg")
    with pytest.raises(MedrlError, match="empty"):
        session.edit(np.zeros((30, 32, 28)), "fg")
    assert snapshot(session) == before


def test_accepting_what_is_not_there(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    session.accept_all()
    assert session.propose() is None
    for act in (session.accept, session.reject):
        with pytest.raises(MedrlError, match="proposes nothing"):
            act()


@pytest.mark.parametrize("half_width", [3, 4])
def test_an_empty_window(make_model, make_scan, half_width: int):
    """With a half width of 3 the window is padded to 8 voxels: what is padded is no content."""
    scan = make_scan(dim=False)
    for channel in (Channel("CT", "hounsfield"), Channel("MR")):
        session = SeedSession(make_model(channels=(channel,), half_width=half_width))
        session.set_scan(scan)
        session.add_seed(make_scan.center, "bg")
        before = snapshot(session)
        with pytest.raises(MedrlError, match="nothing to see"):
            session.add_seed(make_scan.center + xyz(21, 21, 19), "fg")
        assert snapshot(session) == before


def test_unfit_scans_leave_the_session_as_it_was(session, make_scan):
    session.add_seed(make_scan.center, "fg")
    before = snapshot(session)
    scan = make_scan()
    values = scan.as_tensor()
    for message, bad in {
        "a volume, not a slice": values[..., :1],
        "choose one channel": values.expand(2, -1, -1, -1),
        "not numbers": torch.where(values > 0, torch.nan, values),
    }.items():
        with pytest.raises(MedrlError, match=message):
            session.set_scan(MetaTensor(bad, affine=scan.affine))
    with pytest.raises(MedrlError, match="looks at CT, not at PET"):
        session.set_scan({"PET": scan})
    with pytest.raises(MedrlError, match="looks at CT, not at PET"):
        session.set_scan(scan, channel="PET")
    assert snapshot(session) == before
    with pytest.raises(MedrlError, match="no scan yet"):
        SeedSession(session.model).add_seed((0, 0, 0), "fg")


def test_which_channel_an_image_is(make_model, make_scan):
    model = make_model(channels=(Channel("CT", "hounsfield"), Channel("PET", "suv")))
    ct = make_scan()
    ct = MetaTensor(torch.where(ct.as_tensor() < 0, -900.0, 190.0), affine=ct.affine)
    pet = MetaTensor((ct.as_tensor() > 0) * 8.0, affine=ct.affine)
    session = SeedSession(model)
    session.set_scan(ct)
    assert list(session.images) == ["CT"]
    session.set_scan(pet)
    assert list(session.images) == ["PET"]
    session.set_scan(pet, channel="CT")
    assert list(session.images) == ["CT"]
    coarse = make_scan("coarser")
    session.set_scan(
        {"PET": MetaTensor((coarse.as_tensor() > 0) * 8.0, affine=coarse.affine), "CT": ct}
    )
    session.add_seed(make_scan.center, "fg")
    assert session.mask().shape == coarse.shape
    with pytest.raises(MedrlError, match=r"PET: .*looks like a CT"):
        session.set_scan({"CT": ct, "PET": ct})
    with pytest.raises(MedrlError, match="convert them to SUV"):
        session.set_scan({"PET": MetaTensor(pet.as_tensor() * 1000, affine=ct.affine)})
    twins = SeedSession(make_model(channels=(Channel("T1"), Channel("T2"))))
    with pytest.raises(MedrlError, match="say which of them"):
        twins.set_scan(pet)
