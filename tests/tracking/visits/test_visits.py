"""Points through visits: against closed forms, brute force, SimpleITK and known fields."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from scipy.ndimage import gaussian_filter

from medrl.errors import MedrlError
from medrl.tracking.visits.descriptors import REACH, mind_ssc, offset_distances
from medrl.tracking.visits.dynamics import MOVES, STAY, Pair, View, VisitDynamics
from medrl.tracking.visits.field import Field
from medrl.tracking.visits.follow import Followed, Follower
from medrl.tracking.visits.model import VisitModel, VisitSettings
from medrl.tracking.visits.neighbours import Neighbourhood, nearest, predicted
from medrl.tracking.visits.policy import subvoxel
from medrl.tracking.visits.start import register
from medrl.tracking.visits.support import support_points
from medrl.tracking.visits.synthesis import bent, random_bend
from medrl.volume.itk import from_sitk, to_sitk
from medrl.volume.pyramid import build_pyramid
from medrl.volume.space import apply_affine

SMALL = VisitSettings(spacings=(2.0, 4.0), support=80, neighbours=12, reach_mm=60.0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blobs(seed: int = 0, side: int = 48) -> MetaTensor:
    """A cloud of structure at 2 mm, its array axes turned and flipped in the world."""
    noise = np.random.default_rng(seed).normal(size=(side, side, side))
    values = gaussian_filter(noise, 2.0)
    values = (values - values.min()) / np.ptp(values)
    affine = np.array([[0, -2.0, 0, 50], [-2.0, 0, 0, 30], [0, 0, 2.0, -40], [0, 0, 0, 1]])
    return MetaTensor(torch.from_numpy(values[None].astype(np.float32)), affine=affine)


def inner_points(scan: MetaTensor, count: int = 12, seed: int = 3) -> np.ndarray:
    shape = np.array(scan.shape[1:])
    voxels = np.random.default_rng(seed).uniform(0.3, 0.7, (count, 3)) * (shape - 1)
    return apply_affine(np.asarray(scan.affine), voxels)


@pytest.fixture(scope="module")
def known() -> tuple[MetaTensor, MetaTensor, np.ndarray, np.ndarray]:
    scan = blobs()
    bend = random_bend(scan, generator=np.random.default_rng(5), largest_mm=6.0)
    points = inner_points(scan)
    return scan, bent(scan, bend), points, bend.forward(points)


@pytest.fixture(scope="module")
def followed(known) -> Followed:
    earlier, later, points, _ = known
    return Follower(VisitModel(SMALL)).follow(earlier, later, points)


def test_descriptors_do_not_change_with_contrast():
    values = torch.rand(2, 1, 11, 11, 11, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mind_ssc(values), mind_ssc(0.9 - 0.6 * values), atol=1e-3)
    assert mind_ssc(values).shape == (2, 12, 7, 7, 7)


def test_distances_are_those_of_every_offset():
    generator = torch.Generator().manual_seed(1)
    patch = torch.rand(3, 4, 5, 5, 5, generator=generator)
    around = torch.rand(3, 4, 9, 9, 9, generator=generator)
    found = offset_distances(patch, around, dilation=2, chunk=2)
    for offset in ((0, 0, 0), (4, 1, 3), (2, 2, 2)):
        window = around[(slice(None), slice(None), *(slice(o, o + 5, 2) for o in offset))]
        brute = (patch[:, :, ::2, ::2, ::2] - window).square().mean(dim=(1, 2, 3, 4))
        assert torch.allclose(found[(slice(None), *offset)], brute, atol=1e-5)


def test_parabola_is_met_between_voxels():
    axis = torch.arange(-2, 3).float()
    lowest = torch.tensor([0.3, -0.2, 0.45])
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    values = (grid - lowest).square().sum(dim=-1)[None]
    assert torch.allclose(subvoxel(values, torch.zeros(1, 3).long())[0], lowest.double(), atol=1e-5)


def test_neighbours_tell_an_affine_map_exactly_when_they_surround_one():
    points = np.random.default_rng(0).uniform(-30, 30, (60, 3))
    shift = np.array([1.0, 2.0, 3.0])
    row = torch.from_numpy(nearest(points, 20))
    apart = torch.from_numpy(points)[row] - torch.from_numpy(points)[:, None]
    hood = Neighbourhood(row, torch.ones_like(row, dtype=torch.bool), apart)
    told = torch.from_numpy(np.tile(shift, (60, 1)))
    assert np.allclose(predicted(hood, told, torch.ones(60).double()), shift)


def test_nearest_names_oneself_where_there_is_nobody():
    assert nearest(np.zeros((1, 3)), 3).tolist() == [[0, 0, 0]]
    twins = nearest(np.array([[0.0, 0, 0], [0.0, 0, 0], [9.0, 0, 0]]), 2)
    assert [set(row) for row in twins.tolist()] == [{1, 2}, {0, 2}, {0, 1}]


def test_agents_see_the_later_scan_through_the_start():
    """Where the start is right, the best offset of every agent is none, in any pose."""
    scan = blobs()
    turn = np.eye(4)
    angle = np.deg2rad(25)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = 7, -4, 11
    later = MetaTensor(scan.as_tensor(), affine=turn @ np.asarray(scan.affine))
    pair = Pair(*(build_pyramid(s, spacings=(2.0, 4.0)) for s in (scan, later)), turn)
    dynamics = VisitDynamics([pair], view=View(search=3))
    points = torch.from_numpy(inner_points(scan))
    hood = torch.from_numpy(nearest(points.numpy(), 4))
    state = dynamics.reset(torch.zeros(12, dtype=torch.int64), points, hood)
    assert (state.sees.flatten(1).argmin(dim=1) == 7**3 // 2).all()
    assert np.allclose(dynamics.places(state).position_world, apply_affine(turn, points.numpy()))


def test_moves_follow_the_pyramids_axes_and_stop_at_the_rim():
    scan = blobs()
    pyramid = build_pyramid(scan, spacings=(2.0, 4.0))
    dynamics = VisitDynamics([Pair(pyramid, pyramid, np.eye(4))], view=View(search=2))
    point = torch.from_numpy(inner_points(scan, 1))
    state = dynamics.reset(torch.zeros(1).long(), point, torch.zeros(1, 1).long())
    moved = dynamics.step(state, torch.tensor([0]))
    # Pyramids are laid along the world's axes as nearly as can be: i is to the right.
    assert np.allclose(dynamics.displacement(moved)[0], [4.0, 0.0, 0.0])
    again = dynamics.step(moved, torch.tensor([0]))
    assert dynamics.allowed(again)[0].tolist() == [False, True, True, True, True, True, True]
    assert len(MOVES) - 1 == STAY


def test_points_are_found_where_the_field_puts_them(known, followed):
    _, _, points, truth = known
    before = np.linalg.norm(points - truth, axis=1)
    after = np.linalg.norm(followed.points_world - truth, axis=1)
    assert before.mean() > 2.0
    assert after.mean() < 1.2  # 0.6 of the finest voxel
    assert after.mean() < before.mean() / 2
    assert np.isnan(followed.confidence).all()
    assert not followed.outside.any()


def test_every_point_leaves_its_path(known, followed):
    agents = followed.trajectory.agents
    assert followed.trajectory.task == "tracking"
    assert [agent.name for agent in agents] == list(followed.names)
    assert all(set(agent.scales_mm) == {2.0, 4.0} for agent in agents)


def test_the_same_scans_give_the_same_answer(known, followed):
    earlier, later, points, _ = known
    again = Follower(VisitModel(SMALL)).follow(earlier, later, points)
    assert np.allclose(again.points_world, followed.points_world, atol=1e-6)


def test_field_is_inverted(followed):
    field = followed.field
    places = followed.field.points_world[:30]
    apart = np.linalg.norm(field.inverse(field(places)) - places, axis=1)
    assert np.median(apart) < 0.1
    assert apart.max() < 1.0


def test_box_and_mask_are_carried_as_simpleitk_shifts_them():
    scan = blobs()
    shift = np.array([6.0, -4.0, 2.0])
    rng = np.random.default_rng(0)
    points = rng.uniform(-60, 60, (50, 3))
    field = Field(points, np.tile(shift, (50, 1)), np.ones(50), np.eye(4))
    box = np.array([[-10.0, -10, -10], [10.0, 14, 8]])
    assert np.allclose(field.carry_box(box), box + shift)
    mask = torch.zeros(scan.shape)
    mask[0, 20:30, 18:28, 15:26] = 1
    carried = field.carry_mask(MetaTensor(mask, affine=scan.affine), scan)
    image = to_sitk(MetaTensor(mask, affine=scan.affine))
    move = sitk.TranslationTransform(3, [6.0, -4.0, -2.0])  # LPS, from where to whence
    peer = from_sitk(sitk.Resample(image, image, move, sitk.sitkNearestNeighbor))
    assert torch.equal(carried.as_tensor().float(), peer.as_tensor())


def test_registration_finds_a_known_pose():
    scan = blobs()
    turn = np.eye(4)
    angle = np.deg2rad(6)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = 5.0, -3.0, 8.0
    later = MetaTensor(scan.as_tensor(), affine=turn @ np.asarray(scan.affine))
    points = inner_points(scan)
    truth = apply_affine(turn, points)
    start = register(scan, later)
    for matrix in (start.rigid_world, start.affine_world):
        assert np.linalg.norm(apply_affine(matrix, points) - truth, axis=1).max() < 1.0


def test_support_lies_on_structure_within_reach():
    values = torch.zeros(1, 40, 40, 40)
    values[:, 10:14, 20:24, 20:24] = 1.0
    pyramid = build_pyramid(MetaTensor(values, affine=torch.eye(4)), spacings=(1.0,))
    near = support_points(pyramid, np.array([[12.0, 22, 22]]), count=20, reach_mm=12.0)
    assert 0 < len(near) <= 20
    assert np.linalg.norm(near - [11.5, 21.5, 21.5], axis=1).max() < 6.0
    far = support_points(pyramid, np.array([[35.0, 5, 5]]), count=20, reach_mm=5.0)
    assert far.shape == (0, 3)


def test_points_through_time(known):
    earlier, later, points, truth = known
    still, moved = Follower(VisitModel(SMALL)).through_time([earlier, earlier, later], points)
    assert np.linalg.norm(still.points_world - points, axis=1).max() < 0.25
    assert np.linalg.norm(moved.points_world - truth, axis=1).mean() < 1.2


def test_bundle_is_read_back(tmp_path: Path):
    model = VisitModel(SMALL)
    folder = model.save(tmp_path / "mine", name="mine", card={"title": "mine"})
    loaded = Follower.load(folder)
    assert loaded.model.settings == SMALL
    with pytest.raises(MedrlError, match="no model"):
        Follower.load(tmp_path / "nothing")


def test_the_model_that_ships_is_calibrated():
    model = Follower.load("visits").model
    assert model.settings.kind == "visits"
    assert model.confidence is not None
    # Alike, distinct, agreed upon and found back, against the contrary.
    sure, unsure = model.confidence([[0.02, 0.15, 0.1, 0.1, 0.1], [0.15, 0.02, 2.0, 1.5, 3.0]])
    assert sure > 0.9 > unsure


@pytest.mark.parametrize(
    ("points", "names", "line"),
    [
        (np.zeros((2, 2)), None, "points must be"),
        (np.full((1, 3), np.nan), None, "finite"),
        (np.full((1, 3), 1e4), None, "does not lie"),
        (np.zeros((2, 3)), ["a", "a"], "different names"),
        (np.zeros((0, 3)), None, "points must be"),
    ],
)
def test_bad_points_are_refused(points, names, line):
    scan = blobs()
    with pytest.raises(MedrlError, match=line):
        Follower(VisitModel(SMALL)).follow(scan, scan, points, names=names)


def test_bad_masks_boxes_and_frames_are_refused():
    scan = blobs()
    follower = Follower(VisitModel(SMALL))
    empty = MetaTensor(torch.zeros(scan.shape), affine=scan.affine)
    with pytest.raises(MedrlError, match="empty"):
        follower.follow_mask(scan, scan, empty)
    with pytest.raises(MedrlError, match="grid"):
        follower.follow_mask(scan, scan, MetaTensor(torch.zeros(1, 5, 5, 5)))
    with pytest.raises(MedrlError, match="box"):
        follower.follow_box(scan, scan, [[900, 900, 900], [910, 910, 910]])
    with pytest.raises(MedrlError, match="two frames"):
        follower.through_time([scan], np.zeros((1, 3)))


def test_reach_is_what_a_descriptor_loses():
    assert mind_ssc(torch.rand(1, 1, 9, 9, 9)).shape[2] == 9 - 2 * REACH
