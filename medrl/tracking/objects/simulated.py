"""Films of simulated objects with the truth about them: for training, tests and CI, from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medrl.tracking.objects.detections import Detections

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """What is simulated.

    Attributes:
        shape: (I, J, K) of the film, in voxels; K = 1 for flat films.
        frames: T.
        objects: At the start.
        size: Diameter of an object in voxels.
        variety: By how much sizes differ, standard deviation of the logarithm.
        stretch: By how much extents differ along the axes of an object.
        speed: Mean speed in diameters per frame.
        turning: How far directions change in a frame, standard deviation in radians.
        stops: Chance that an object stops, or sets off again, in a frame.
        jumps: Chance of a jump of a diameter or two in a frame.
        meeting: How strongly objects are drawn to each other, 0 to 1.
        divisions: Chance that an object divides in a frame.
        comings: Objects that enter in a frame.
        brightness: By how much objects differ in brightness, standard deviation of the logarithm.
        noise: Of the images, in shares of the mean brightness of objects.
        spacing: Between voxels, in mm; objects are balls in mm.
    """

    shape: tuple[int, int, int] = (256, 256, 1)
    frames: int = 40
    objects: int = 10
    size: float = 16.0
    variety: float = 0.1
    stretch: float = 0.2
    speed: float = 0.15
    turning: float = 0.3
    stops: float = 0.05
    jumps: float = 0.0
    meeting: float = 0.3
    divisions: float = 0.0
    comings: float = 0.05
    brightness: float = 0.2
    noise: float = 0.15
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Film:
    """A simulated film.

    Attributes:
        truth: Every object in every frame, with its identity.
        parent: Mothers by identity.
        frames: (T, 1, I, J, K) float32, or None.
        spacing: In mm.
        shape: (T, I, J, K).
    """

    truth: Detections
    parent: dict[int, int]
    frames: Tensor | None
    spacing: tuple[float, float, float]
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Flaws:
    """What detectors do wrong.

    Attributes:
        missed: Share of the objects that are not detected.
        jitter: Standard deviation of centres and of the logarithm of extents, in extents.
        false: False detections, as a share of the true ones.
        doubt: Scores of true detections lie between 1 - doubt and 1, those of false ones between
            0.1 and 1.
    """

    missed: float = 0.2
    jitter: float = 0.08
    false: float = 0.0
    doubt: float = 0.0


class _Body:
    """One object on its way; positions in mm."""

    def __init__(self, number: int, world: World, rng: np.random.Generator) -> None:
        self.number = number
        mm = world.size * min(world.spacing)
        self.radius = mm / 2 * np.exp(world.variety * rng.normal())
        self.shape = np.exp(world.stretch * rng.normal(size=3))
        self.bright = np.exp(world.brightness * rng.normal())
        self.direction = _unit(rng.normal(size=3) * _moves(world))
        self.pace = abs(rng.normal(1.0, 0.4)) * world.speed * mm
        self.still = False
        self.age = 0
        self.position = np.zeros(3)
        self.texture = rng.normal(size=(3, 3))

    @property
    def extent(self) -> Floats:
        return 2 * self.radius * self.shape / np.prod(self.shape) ** (1 / 3)


def simulate(world: World, seed: int, *, images: bool = True) -> Film:
    """Simulate a film.

    Objects move on at their pace, turn, stop, are drawn to each other, divide, leave and enter.

    Args:
        world: What is simulated.
        seed: Fixes everything.
        images: Draw the frames as well.
    """
    rng = np.random.default_rng(seed)
    moves, step = _moves(world), np.array(world.spacing)
    sides = np.array(world.shape) * step
    bodies: list[_Body] = []
    for number in range(1, world.objects + 1):
        body = _Body(number, world, rng)
        body.position = _place(bodies, body, sides, moves, rng)
        bodies.append(body)
    new, parent = world.objects + 1, {}
    rows: list[tuple[int, int]] = []
    boxes: list[Floats] = []
    drawn = np.zeros((world.frames, *world.shape), np.float32) if images else None
    for frame in range(world.frames):
        if frame:
            _advance(bodies, world, sides, moves, rng)
            bodies = [b for b in bodies if _inside(b, sides, moves)]
            for body in list(bodies):
                if body.age > 6 and rng.random() < world.divisions:
                    bodies.remove(body)
                    for daughter in _daughters(body, new, world, moves, rng):
                        parent[daughter.number] = body.number
                        bodies.append(daughter)
                        new += 1
            for _ in range(rng.poisson(world.comings)):
                body = _Body(new, world, rng)
                body.position = _at_border(sides, moves, rng)
                body.direction = _unit((sides / 2 - body.position) * moves + 1e-9)
                bodies.append(body)
                new += 1
        for body in bodies:
            extent = np.where(moves > 0, body.extent / step, 1.0)
            middle = body.position / step - 0.5
            middle = np.where(moves > 0, middle, 0.0)
            rows.append((frame, body.number))
            boxes.append(np.stack([middle - extent / 2, middle + extent / 2]))
            if drawn is not None:
                _draw(drawn[frame], boxes[-1], body, rng)
    frames = None
    if drawn is not None:
        drawn += (world.noise * rng.standard_normal(drawn.shape, dtype=np.float32)) + 0.3
        frames = torch.from_numpy(drawn)[:, None]
    table = np.array(rows).reshape(-1, 2)
    truth = Detections.of(table[:, 0], np.array(boxes).reshape(-1, 2, 3), track=table[:, 1])
    return Film(truth, parent, frames, world.spacing, (world.frames, *world.shape))


def detected(truth: Detections, flaws: Flaws, seed: int, shape: tuple[int, ...]) -> Detections:
    """What a detector would find; identities stay, -1 for what is not there.

    Args:
        truth: Of a film.
        flaws: What it does wrong.
        seed: Fixes it.
        shape: (T, I, J, K).
    """
    rng = np.random.default_rng(seed)
    found = truth.select(rng.random(len(truth)) >= flaws.missed)
    middle, extent = found.box.mean(axis=1), found.box[:, 1] - found.box[:, 0]
    moves = np.array(shape[1:]) > 1
    middle = middle + flaws.jitter * extent * rng.normal(size=middle.shape) * moves
    extent = extent * np.exp(flaws.jitter * rng.normal(size=extent.shape) * moves)
    score = 1 - flaws.doubt * rng.random(len(found))
    count = rng.binomial(len(found), flaws.false) if len(found) else 0
    if count:
        some = rng.integers(len(found), size=count)
        place = rng.random((count, 3)) * np.array(shape[1:]) - 0.5
        middle = np.concatenate([middle, np.where(moves, place, 0.0)])
        sizes = extent[some] * np.exp(0.2 * rng.normal(size=(count, 3)) * moves)
        extent = np.concatenate([extent, sizes])
        score = np.concatenate([score, 0.1 + 0.9 * rng.random(count)])
    frame = np.concatenate([found.frame, rng.integers(shape[0], size=count)])
    track = np.concatenate([found.track, np.full(count, -1)])
    label = np.concatenate([found.label, np.zeros(count, np.int64)])
    box = np.stack([middle - extent / 2, middle + extent / 2], axis=1)
    shuffled = rng.permutation(len(frame))
    return Detections.of(
        frame[shuffled],
        box[shuffled],
        score=score[shuffled],
        track=track[shuffled],
        label=label[shuffled],
    )


def drawn_world(seed: int, *, deep: bool | None = None) -> World:
    """A world drawn at random: cells, flies or fish, many or few, alike or not."""
    rng = np.random.default_rng(seed)
    volume = rng.random() < 0.4 if deep is None else deep
    size = float(rng.uniform(8, 12) if volume else rng.uniform(10, 24))
    objects = int(np.exp(rng.uniform(np.log(3), np.log(40))))
    room = size * (objects ** (1 / (3 if volume else 2))) * rng.uniform(1.8, 5.0)
    side = int(np.clip(room, 3 * size, (9 if volume else 20) * size))
    depth = max(8, int(side * rng.uniform(0.3, 0.6))) if volume else 1
    coarse = float(rng.uniform(1, 3)) if volume else 1.0
    return World(
        shape=(side, side, max(4, int(depth / coarse)) if volume else 1),
        frames=int(rng.integers(20, 45)),
        objects=objects,
        size=size,
        variety=float(rng.choice([0.0, 0.1, 0.25])),
        stretch=float(rng.uniform(0, 0.3)),
        speed=float(np.exp(rng.uniform(np.log(0.02), np.log(0.6)))),
        turning=float(rng.uniform(0.05, 0.9)),
        stops=float(rng.uniform(0, 0.15)),
        jumps=float(rng.choice([0.0, 0.01, 0.03])),
        meeting=float(rng.uniform(0, 0.8)),
        divisions=float(rng.choice([0.0, 0.0, 0.01, 0.03])),
        comings=float(rng.uniform(0, 0.3)),
        brightness=float(rng.uniform(0, 0.5)),
        noise=float(rng.uniform(0.05, 0.4)),
        spacing=(1.0, 1.0, coarse),
    )


def faster(film: Film, skip: int) -> Film:
    """Every few frames of a film."""
    truth = film.truth
    kept = truth.select(truth.frame % skip == 0)
    frames = None if film.frames is None else film.frames[::skip]
    length = -(-film.shape[0] // skip)
    return replace(
        film,
        truth=replace(kept, frame=kept.frame // skip),
        frames=frames,
        shape=(length, *film.shape[1:]),
    )


def flipped(film: Film, way: int) -> Film:
    """A film mirrored: way 1 along i, 2 along j, 3 along both, 0 not at all."""
    box, frames = film.truth.box.copy(), film.frames
    for axis in (0, 1):
        if way >> axis & 1:
            box[:, :, axis] = film.shape[1 + axis] - 1 - box[:, ::-1, axis]
            frames = None if frames is None else frames.flip(2 + axis)
    return replace(film, truth=replace(film.truth, box=box), frames=frames)


def _moves(world: World) -> Floats:
    return (np.array(world.shape) > 1).astype(np.float64)


def _unit(vector: Floats) -> Floats:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _place(
    others: list[_Body], body: _Body, sides: Floats, moves: Floats, rng: np.random.Generator
) -> Floats:
    """A place that is as free as twenty tries can find."""
    best, room = np.zeros(3), -np.inf
    for _ in range(20):
        place = rng.uniform(0.05, 0.95, size=3) * sides
        apart = [
            float(np.linalg.norm((place - o.position) * moves)) - body.radius - o.radius
            for o in others
        ]
        free = min(apart, default=1e9)
        if free > room:
            best, room = place, free
        if free > 0:
            break
    return best


def _at_border(sides: Floats, moves: Floats, rng: np.random.Generator) -> Floats:
    place = rng.random(3) * sides
    axis = int(rng.choice(np.flatnonzero(moves)))
    place[axis] = 0.02 * sides[axis] if rng.random() < 0.5 else 0.98 * sides[axis]
    return place


def _inside(body: _Body, sides: Floats, moves: Floats) -> bool:
    within = (body.position >= 0) & (body.position <= sides)
    return bool((within | (moves == 0)).all())


def _advance(
    bodies: list[_Body], world: World, sides: Floats, moves: Floats, rng: np.random.Generator
) -> None:
    places = np.array([body.position for body in bodies]).reshape(-1, 3)
    for n, body in enumerate(bodies):
        body.age += 1
        if rng.random() < world.stops:
            body.still = not body.still
        turn = world.turning * rng.normal(size=3) * moves
        body.direction = _unit(body.direction + turn)
        pull = np.zeros(3)
        if len(bodies) > 1:
            gaps = (places - places[n]) * moves
            apart = np.linalg.norm(gaps, axis=1)
            apart[n] = np.inf
            other = int(apart.argmin())
            touch = 0.85 * (body.radius + bodies[other].radius)
            if apart[other] < touch:
                pull = -_unit(gaps[other]) * (touch - apart[other]) * 0.5
            elif apart[other] < 6 * body.radius:
                pull = world.meeting * 0.5 * body.pace * _unit(gaps[other])
        walk = 0.0 if body.still else body.pace * np.exp(0.3 * rng.normal())
        body.position = body.position + (walk * body.direction + pull) * moves
        if rng.random() < world.jumps:
            hop = _unit(rng.normal(size=3) * moves) * body.radius * rng.uniform(1, 3)
            body.position = body.position + hop
        margin = body.radius * 0.5
        low, high = body.position < margin, body.position > sides - margin
        bounce = (low | high) & (moves > 0) & (rng.random() < 0.85)
        inward = np.where(low, 1.0, -1.0) * np.abs(body.direction)
        body.direction = np.where(bounce, inward, body.direction)
        body.position = np.where(
            bounce, np.clip(body.position, margin, sides - margin), body.position
        )


def _daughters(
    mother: _Body, number: int, world: World, moves: Floats, rng: np.random.Generator
) -> list[_Body]:
    axis = _unit(rng.normal(size=3) * moves)
    found = []
    for n, sign in enumerate((-1.0, 1.0)):
        body = _Body(number + n, world, rng)
        body.radius = mother.radius * 0.8
        body.shape, body.bright, body.texture = mother.shape, mother.bright, mother.texture
        body.direction, body.pace = sign * axis, mother.pace
        body.position = mother.position + sign * axis * mother.radius * rng.uniform(0.7, 1.0)
        found.append(body)
    return found


def _draw(frame: NDArray[np.float32], box: Floats, body: _Body, rng: np.random.Generator) -> None:
    """Add a soft ball with a texture of its own."""
    middle, half = box.mean(axis=0), np.maximum((box[1] - box[0]) / 2, 0.5)
    low = np.maximum(np.floor(middle - 1.3 * half), 0).astype(int)
    high = np.minimum(np.ceil(middle + 1.3 * half) + 1, frame.shape).astype(int)
    if (high <= low).any():
        return
    axes = [
        (np.arange(a, b) - m) / h if side > 1 else np.zeros(1)
        for a, b, m, h, side in zip(low, high, middle, half, frame.shape, strict=True)
    ]
    x, y, z = axes[0][:, None, None], axes[1][:, None], axes[2]
    inside = 1 / (1 + np.exp(8 * (x**2 + y**2 + z**2 - 0.8)))
    grain = 1 + 0.25 * sum(np.sin(2 * t[0] * x + 2 * t[1] * y + 2 * t[2] * z) for t in body.texture)
    part = frame[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    part += (body.bright * inside * grain).astype(np.float32)
