"""Segment with clicks: the public face of the seed agents, all that a GUI needs and no GUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray

from medrl.errors import MedrlError
from medrl.results.provenance import provenance
from medrl.seednet.boxed import first_seed
from medrl.seednet.editor import Editor
from medrl.seednet.model import SeedModel
from medrl.seednet.objects import Edit, History, Inputs, Segmented
from medrl.seednet.seeds import Seed, as_label
from medrl.trajectory import Step, Trajectory, Watch
from medrl.volume.channels import name_images
from medrl.volume.grid import on_grid_of
from medrl.volume.space import voxel_to_world


class SeedSession:
    """One scan, its objects, and an agent that proposes seeds.

    >>> session = medrl.load("hippocampus-t1").session()
    >>> session.set_scan(medrl.read("scan.nii.gz"))
    >>> session.add_seed((28.0, -20.5, -14.0), "fg")
    >>> session.accept_all()
    >>> mask = session.mask()

    Seeds are world points, RAS mm; labels are ``fg`` and ``bg``, or the constants of
    :mod:`medrl.walker.segmenter`. A user's seeds always win: their voxels have the user's label
    in every mask, whatever the model thinks. What the agent proposes is kept apart from them until
    it is accepted; near a rejected proposal nothing of its label is proposed again until the user
    changes something there. Every object has its own history for undo and redo.

    Where an object's name may be given, the current object is meant without one.

    Raises:
        MedrlError: From whatever goes wrong, which leaves everything as it was: there is no scan
            yet, no object of that name, no seed of that number, no foreground seed yet; or the
            object to be changed is locked.
    """

    def __init__(self, model: SeedModel, *, manifest: Mapping[str, Any] | None = None) -> None:
        """Use a model where its network is; others may use it at the same time.

        Args:
            model: The trained agent.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = dict(manifest or {"name": "unnamed"})
        self._editor: Editor | None = None
        self._images: dict[str, MetaTensor] = {}
        self._objects: dict[str, History] = {}
        self._current = ""
        self._proposal: tuple[Segmented, Seed | None] | None = None

    # ---- the scan

    def set_scan(
        self, scan: MetaTensor | Mapping[str, MetaTensor], *, channel: str | None = None
    ) -> None:
        """Take a scan; objects of an earlier one are forgotten.

        Args:
            scan: MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm), any orientation
                and spacing; or several of one patient by channel name, in one space. Masks come in
                the grid of the first.
            channel: What a single image is, for a model of several channels; found out from its
                values if left out.

        Raises:
            MedrlError: If an image cannot be what the model was trained for.
        """
        images = name_images(scan, self.model.settings.channels, channel=channel)
        self._editor = Editor(self.model, images)
        self._images = images
        self._objects = {}
        self._current = ""
        self._proposal = None

    @property
    def images(self) -> dict[str, MetaTensor]:
        """The patient's images by channel; the first is the one whose grid masks have."""
        return dict(self._images)

    # ---- objects

    @property
    def objects(self) -> tuple[str, ...]:
        """Names of the objects, in the order made."""
        return tuple(self._objects)

    @property
    def current(self) -> str:
        """Name of the object that is worked on; empty before the first."""
        return self._current

    def new_object(self, name: str | None = None, *, target: str | None = None) -> str:
        """Begin another object and switch to it; the first seed in a scan does so by itself.

        Args:
            name: What to call it; after its target if None.
            target: Which of the model's kinds of object it is; the first if None.

        Returns:
            Its name.
        """
        self._ready()
        number = self.model.target_index(target)
        kind = self.model.settings.targets[number].name
        if name is None:
            same = [kind, *(f"{kind} {n}" for n in range(2, len(self._objects) + 2))]
            name = next(candidate for candidate in same if candidate not in self._objects)
        if name in self._objects:
            raise MedrlError(f"there is an object {name!r} already: switch to it")
        self._objects[name] = History(Inputs(number))
        self._current = name
        return name

    def switch(self, name: str) -> None:
        """Go on with another object, where it was left."""
        self._named(name)
        self._current = name

    def lock(self, name: str | None = None, *, locked: bool = True) -> None:
        """Protect an object from changes, and its voxels in :meth:`labels` from other objects."""
        self._named(name).locked = locked

    def is_locked(self, name: str | None = None) -> bool:
        """Whether an object is protected."""
        return self._named(name).locked

    def rename(self, name: str, new: str) -> None:
        """Call an object something else."""
        self._named(name)
        if not new:
            raise MedrlError("an object needs a name")
        if new != name and new in self._objects:
            raise MedrlError(f"there is an object {new!r} already")
        self._objects = {new if n == name else n: line for n, line in self._objects.items()}
        if self._current == name:
            self._current = new

    def target_of(self, name: str | None = None) -> str:
        """Which of the model's kinds of object it is."""
        return self.model.settings.targets[self._named(name).obj.target].name

    # ---- the user's part

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """Seeds of the current object: the user's in the order placed, then the agent's."""
        return self.seeds_of(self._current) if self._current else ()

    def seeds_of(self, name: str) -> tuple[Seed, ...]:
        """Seeds of any object, as :attr:`seeds`."""
        obj = self._named(name).obj
        return (*obj.seeds, *obj.placed)

    def add_seed(self, point_world: ArrayLike, label: int | str) -> int:
        """Place a seed.

        Args:
            point_world: (3,) RAS mm; or (P, 3), a scribble through these points.
            label: Of the seed.

        Returns:
            Its place among the user's :attr:`seeds`.

        Raises:
            MedrlError: If it lies outside the scan or the limits, on a voxel of a seed of the
                other label, too far from the object's other seeds, or where there is nothing to
                see.
        """
        self.add_seeds([Seed(np.asarray(point_world), as_label(label))])
        return len(self._named(None).obj.seeds) - 1

    def add_seeds(self, seeds: Sequence[Seed]) -> None:
        """Place several seeds in one step, such as those of a file; all count as the user's."""
        own = [Seed(seed.points_world, seed.label) for seed in seeds]
        obj = self._changing()
        self._check(own, obj.seeds, obj)
        if own:
            self._change(obj, seeds=(*obj.seeds, *own))

    def remove_seed(self, index: int) -> None:
        """Take the seed at a place in :attr:`seeds` away; an agent's is not proposed again."""
        obj = self._changing()
        if not 0 <= index < len(self.seeds):
            raise MedrlError(f"there is no seed {index}: the object has {len(self.seeds)}")
        seed = self.seeds[index]
        if seed.who == "user":
            self._change(obj, seeds=tuple(other for other in obj.seeds if other is not seed))
            return
        editor = self._ready()
        without = editor.change(obj, placed=tuple(s for s in obj.placed if s is not seed))
        self._advance(editor.reject(without, seed))

    def move_seed(self, index: int, points_world: ArrayLike) -> None:
        """Put one of the user's seeds elsewhere.

        Args:
            index: Its place in :attr:`seeds`.
            points_world: (3,) or (P, 3), RAS mm.

        Raises:
            MedrlError: As :meth:`add_seed`.
        """
        obj = self._changing()
        if not 0 <= index < len(obj.seeds):
            raise MedrlError(f"there is no seed {index} of yours: you have {len(obj.seeds)}")
        before, after = obj.seeds[:index], obj.seeds[index + 1 :]
        moved = Seed(np.asarray(points_world), obj.seeds[index].label)
        self._check([moved], (*before, *after), obj)
        self._change(obj, seeds=(*before, moved, *after))

    def edit(self, region: Any, label: int | str) -> None:
        """Paint over the mask: these voxels keep this label, and what follows adapts to them.

        Args:
            region: (I, J, K) bool, or (1, I, J, K), in the scan's grid. A seed on one of its voxels
                keeps its own label; of two edits the later one counts.
            label: Of the voxels.

        Raises:
            MedrlError: If the region is empty or of another shape.
        """
        output = self._ready().output
        number = as_label(label)
        where = np.asarray(region, dtype=bool)
        where = where[0] if where.ndim == 4 else where
        if where.shape != output.shape:
            raise MedrlError(
                f"the region must be of the scan's shape {output.shape}, not {where.shape}"
            )
        voxels = np.argwhere(where)
        if not len(voxels):
            raise MedrlError("the region to edit is empty")
        obj = self._changing()
        edit = Edit(voxels, voxel_to_world(voxels, output.affine), number)
        self._change(obj, edits=(*obj.edits, edit))

    def set_limits(self, corners_world: ArrayLike | None) -> None:
        """Confine the current object to a box along the axes of the body.

        Args:
            corners_world: (2, 3) RAS mm, any two opposite corners; None for no limits.

        Raises:
            MedrlError: If a seed lies outside it.
        """
        obj = self._changing()
        limits = None
        if corners_world is not None:
            corners = np.asarray(corners_world, dtype=np.float64)
            if corners.shape != (2, 3) or not np.isfinite(corners).all():
                raise MedrlError("limits are two opposite corners of a box, three numbers each")
            limits = np.sort(corners, axis=0)
            for seed in obj.seeds:
                self._ready().output.check_place(seed, limits)
        self._change(obj, limits_world=limits)

    def add_seed_in_limits(self) -> int:
        """Place a foreground seed where the model sees the object in its limits.

        Returns:
            Its place among the user's :attr:`seeds`.

        Raises:
            MedrlError: If there are no limits, or they hold nothing of the scan.
        """
        obj = self._changing()
        if obj.limits_world is None:
            raise MedrlError("the object has no limits yet: set_limits() first")
        first = next(iter(self._images.values()))
        self.add_seeds([first_seed(self._ready(), first, obj)])
        return len(self._named(None).obj.seeds) - 1

    def undo(self) -> None:
        """Take back the last change to the current object."""
        self._unlocked().undo()

    def redo(self) -> None:
        """Make the change again that was taken back last."""
        self._unlocked().redo()

    @property
    def can_undo(self) -> bool:
        """Whether the current object has a change to take back."""
        return bool(self._current) and bool(self._objects[self._current].past)

    @property
    def can_redo(self) -> bool:
        """Whether the current object has a change to make again."""
        return bool(self._current) and bool(self._objects[self._current].future)

    # ---- the agent's part

    def propose(self) -> Seed | None:
        """The seed that the agent would place next; nothing changes.

        None if it expects nothing of another one, or has used up its own.
        """
        obj = self._segmented()
        if self._proposal is None or self._proposal[0] is not obj:
            self._proposal = obj, self._ready().propose(obj)
        return self._proposal[1]

    def accept(self) -> None:
        """Place the seed that :meth:`propose` gives; an error if there is none."""
        self._advance(self._ready().accept(self._segmented(), self._proposed()))

    def reject(self) -> None:
        """Refuse the seed that :meth:`propose` gives; an error if there is none."""
        self._advance(self._ready().reject(self._segmented(), self._proposed()))

    def accept_all(
        self,
        *,
        max_seeds: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> tuple[Seed, ...]:
        """Let the agent place seeds until it stops: one step to undo.

        Args:
            max_seeds: Stop after this many; as many as the model was trained to place if None.
            progress: Called with the seeds placed so far and the most there can be.
            watch: Called after every seed, when :meth:`mask` and the rest show it already. What it
                raises ends the run and comes out of it; the seeds placed by then stay.

        Returns:
            What it placed.
        """
        before = obj = kept = self._segmented()
        history, editor = self._unlocked(), self._ready()
        done: list[Seed] = []
        try:
            while max_seeds is None or len(done) < max_seeds:
                seed = editor.propose(obj)
                if seed is None:
                    obj = editor.stop(obj)
                    break
                obj = editor.accept(obj, seed)
                done.append(seed)
                if progress is not None:
                    progress(len(done), self.model.settings.max_seeds)
                if watch is not None:
                    kept = history.obj = obj
                    watch(self._step(seed))
            kept = obj
        finally:
            history.obj = before
            self._advance(kept)
        return tuple(done)

    # ---- the answer

    def mask(self, name: str | None = None) -> MetaTensor:
        """The segmentation in the scan's own grid: (1, I, J, K) uint8 of 0 and 1."""
        return self._as_scan((self._probability(name) > 0.5).astype(np.uint8))

    def probability(self, name: str | None = None) -> MetaTensor:
        """The probability of foreground in the scan's own grid: (1, I, J, K) float32.

        It is exactly 0 or 1 at the user's seeds, and 0 outside the window.
        """
        return self._as_scan(self._probability(name))

    def labels(self) -> MetaTensor:
        """All objects in one map (1, I, J, K) uint8, in the scan's own grid.

        It holds 0, 1 for the first of :attr:`objects`, and so on; ``meta["labels"]`` gives the
        numbers by name. Where objects overlap, a locked one comes first, then one whose seed is
        there, then the later one. There can be up to 255.
        """
        labelled = self._as_scan(self._ready().output.label_map(self._objects))
        labelled.meta["labels"] = {name: n for n, name in enumerate(self._objects, 1)}
        return labelled

    def unfit(self, name: str | None = None) -> tuple[str, ...]:
        """Why the model was not made for what an object is, one line each; none if it was."""
        return self._ready().unfit(self._segmented(name))

    def confidence(self, name: str | None = None) -> float | None:
        """Probability that an object's mask has a Dice overlap of 0.7 or more with the truth.

        None for a model that was not calibrated.
        """
        return self._ready().confidence(self._segmented(name))

    def outcome(self, name: str | None = None) -> str:
        """What the agent is doing in an object or how it ended, in words."""
        return self._named(name).outcome

    def trajectory(self) -> Trajectory:
        """The agent's seeds: a path for every object, a step for every seed that was accepted.

        Actions are labels, values the expected gains in Dice.
        """
        spacing = self.model.settings.spacing
        agents = tuple(history.path(name, spacing) for name, history in self._objects.items())
        made_by = provenance(self.manifest, *self._images.values())
        return Trajectory("seednet", agents, made_by)

    # ---------------------------------------------------------------------------------------------

    def _ready(self) -> Editor:
        if self._editor is None:
            raise MedrlError("the session has no scan yet: set_scan() first")
        return self._editor

    def _named(self, name: str | None) -> History:
        self._ready()
        name = self._current if name is None else name
        if not name:
            raise MedrlError("place a foreground seed first")
        if name not in self._objects:
            there = ", ".join(self._objects) or "none yet"
            raise MedrlError(f"there is no object {name!r}; there are: {there}")
        return self._objects[name]

    def _unlocked(self) -> History:
        """The current object's history, if it may be changed."""
        history = self._named(None)
        if history.locked:
            raise MedrlError(f"the object {self._current!r} is locked: unlock it first")
        return history

    def _changing(self) -> Inputs:
        """The current object, if it may be changed; a new one if there is none."""
        self._ready()
        return self._unlocked().obj if self._current else Inputs(0)

    def _segmented(self, name: str | None = None) -> Segmented:
        obj = self._named(name).obj
        if not isinstance(obj, Segmented):
            raise MedrlError("place a foreground seed first")
        return obj

    def _proposed(self) -> Seed:
        self._segmented()
        self._unlocked()
        seed = self.propose()
        if seed is None:
            raise MedrlError("the agent proposes nothing: it has stopped")
        return seed

    def _check(self, seeds: Sequence[Seed], others: Sequence[Seed], obj: Inputs) -> None:
        """Refuse seeds that cannot be where they are, or contradict others or each other."""
        output, known = self._ready().output, list(others)
        for seed in seeds:
            output.check_place(seed, obj.limits_world)
            output.check_agreement(seed, known)
            known.append(seed)

    def _change(self, obj: Inputs, **changes: Any) -> None:
        self._advance(self._ready().change(obj, **changes))

    def _advance(self, obj: Inputs) -> None:
        """Make a new state the current one; the object too if there is none."""
        if not self._current:
            self.new_object()
        self._objects[self._current].advance(obj)

    def _probability(self, name: str | None) -> NDArray[np.float32]:
        return self._ready().output.probability(self._segmented(name))

    def _as_scan(self, values: NDArray[Any]) -> MetaTensor:
        """An array (I, J, K) on the scan's grid."""
        first = next(iter(self._images.values()))
        return on_grid_of(torch.from_numpy(values)[None], first)

    def _step(self, seed: Seed) -> Step:
        """What the agent did by placing a seed."""
        return Step(
            names=(self._current,),
            starts=np.zeros(1, dtype=np.int64),
            positions_world=seed.position_world[None],
            scales_mm=np.array([self.model.settings.spacing]),
            actions=np.array([seed.label], dtype=np.int64),
            values=np.array([seed.expected_gain]),
            value_unit="Dice",
        )
