"""Segment with clicks: the public face of the seed agents, all that a GUI needs and no GUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.results.provenance import provenance
from medrl.seednet.editor import Candidate, Edit, Editor, ObjectState, WindowView
from medrl.seednet.images import name_images
from medrl.seednet.model import SeedModel
from medrl.seednet.objects import History, agent_path, label_map
from medrl.seednet.output_grid import OutputGrid
from medrl.seednet.seeds import Seed, as_label
from medrl.seednet.windows import to_grid
from medrl.trajectory import Step, Trajectory, Watch
from medrl.volume.space import as_affine, voxel_to_world


@dataclass(frozen=True, eq=False)
class Proposal:
    """The next seed that the agent would place.

    Attributes:
        position_world: (3,) RAS mm.
        label: BACKGROUND or FOREGROUND.
        expected_gain: What it expects of it, in Dice.
    """

    position_world: NDArray[np.float64]
    label: int
    expected_gain: float


class SeedSession:
    """One scan, its objects, and an agent that proposes seeds.

    Whatever goes wrong raises :class:`medrl.errors.MedrlError` and leaves everything as it was.

    >>> session = SeedSession.load("hippocampus-t1")
    >>> session.set_scan(medrl.read("scan.nii.gz"))
    >>> session.add_seed((28.0, -20.5, -14.0), "fg")
    >>> session.accept_all()
    >>> mask = session.mask()

    Seeds are world points, RAS mm. A user's seeds always win: their voxels have the user's label
    in every mask, whatever the model thinks. What the agent proposes is kept apart from them until
    it is accepted; near a rejected proposal nothing of its label is proposed again until the user
    changes something there. Every object has its own history for undo and redo.
    """

    def __init__(self, model: SeedModel, *, manifest: Mapping[str, Any] | None = None) -> None:
        """Use a model that is in memory already; others may use it at the same time.

        Args:
            model: The trained agent; where its network is, the session works.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = dict(manifest or {"name": "unnamed"})
        self._editor: Editor | None = None
        self._output_grid = OutputGrid(np.eye(4), (0, 0, 0))
        self._images: dict[str, MetaTensor] = {}
        self._objects: dict[str, History] = {}
        self._current = ""
        self._proposal: tuple[ObjectState, Candidate] | None = None

    @classmethod
    def load(cls, name_or_dir: str | Path, *, device: str = "cpu") -> SeedSession:
        """Load a model that ships with medrl by its name, or any bundle folder.

        Args:
            name_or_dir: For example ``hippocampus-t1``, or a path.
            device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.

        Raises:
            MedrlError: If there is no such model, it is damaged, or the device is not there.
        """
        from medrl.seednet.segment import SeedSegmenter

        return SeedSegmenter.load(name_or_dir, device=device).session()

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
        grid = to_grid(images, self.model.settings.channels, self.model.settings.spacing)
        first = next(iter(images.values()))
        i, j, k = first.shape[1:]
        self._output_grid = OutputGrid(as_affine(first.affine), (i, j, k))
        self._editor = Editor(self.model, grid)
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
        """Begin another object and switch to it.

        The first seed in a scan does so by itself.

        Args:
            name: What to call it; after its target if None.
            target: Which of the model's kinds of object it is; the first if None.

        Returns:
            Its name.

        Raises:
            MedrlError: If there is one of that name, or the model has no such target.
        """
        self._ready()
        number = self.model.target_index(target)
        kind = self.model.settings.targets[number].name
        if name is None:
            same = [kind, *(f"{kind} {n}" for n in range(2, len(self._objects) + 2))]
            name = next(candidate for candidate in same if candidate not in self._objects)
        if name in self._objects:
            raise MedrlError(f"there is an object {name!r} already: switch to it")
        self._objects[name] = History(ObjectState(number))
        self._current = name
        return name

    def switch(self, name: str) -> None:
        """Go on with another object, where it was left.

        Raises:
            MedrlError: If there is none of that name.
        """
        self._named(name)
        self._current = name

    def lock(self, name: str | None = None, *, locked: bool = True) -> None:
        """Protect an object from changes, and its voxels in :meth:`labels` from other objects.

        Args:
            name: Which; the current one if None.
            locked: False to unlock it.

        Raises:
            MedrlError: If there is none of that name.
        """
        self._named(name).locked = locked

    def is_locked(self, name: str | None = None) -> bool:
        """Whether an object is protected; the current one if no name is given.

        Raises:
            MedrlError: If there is none of that name.
        """
        return self._named(name).locked

    def rename(self, name: str, new: str) -> None:
        """Call an object something else.

        Raises:
            MedrlError: If there is none of that name, or one of the new name already.
        """
        self._named(name)
        if not new or (new != name and new in self._objects):
            raise MedrlError(
                f"there is an object {new!r} already" if new else "an object needs a name"
            )
        self._objects = {new if n == name else n: line for n, line in self._objects.items()}
        if self._current == name:
            self._current = new

    def target_of(self, name: str | None = None) -> str:
        """Which of the model's kinds of object it is; the current one if no name is given.

        Raises:
            MedrlError: If there is none of that name.
        """
        return self.model.settings.targets[self._named(name).obj.target].name

    # ---- the user's part

    @property
    def seeds(self) -> tuple[Seed, ...]:
        """Seeds of the current object: the user's in the order placed, then the agent's."""
        return self.seeds_of(self._current) if self._current else ()

    def seeds_of(self, name: str) -> tuple[Seed, ...]:
        """Seeds of any object, as :attr:`seeds`.

        Raises:
            MedrlError: If there is none of that name.
        """
        obj = self._named(name).obj
        return (*obj.seeds, *obj.placed)

    def add_seed(self, point_world: ArrayLike, label: int | str) -> int:
        """Place a seed.

        Args:
            point_world: (3,) RAS mm; or (P, 3), a scribble through these points.
            label: ``fg`` or ``bg``, or the constants of :mod:`medrl.walker.segmenter`.

        Returns:
            Its place among the user's :attr:`seeds`.

        Raises:
            MedrlError: If it lies outside the scan or the limits, on a voxel that another seed
                says the opposite of, too far from the object's other seeds, or where there is
                nothing to see; or the object is locked.
        """
        self.add_seeds([Seed(np.asarray(point_world), as_label(label))])
        return len(self._current_state().seeds) - 1

    def add_seeds(self, seeds: Sequence[Seed]) -> None:
        """Place several seeds in one step, such as those of a file.

        Args:
            seeds: The seeds; all count as the user's.

        Raises:
            MedrlError: As :meth:`add_seed`.
        """
        editor = self._ready()
        own = [Seed(seed.points_world, seed.label) for seed in seeds]
        obj = self._changing()
        known = list(obj.seeds)
        for seed in own:
            self._output_grid.check_place(seed, obj.limits_world)
            self._output_grid.check_agreement(seed, known)
            known.append(seed)
        if own:
            self._advance(editor.change(obj, seeds=known))

    def remove_seed(self, index: int) -> None:
        """Take a seed away.

        Args:
            index: Its place in :attr:`seeds`. One of the agent's is not proposed again there.

        Raises:
            MedrlError: If there is no such seed, or the object is locked.
        """
        editor, obj = self._ready(), self._changing()
        if not 0 <= index < len(self.seeds):
            raise MedrlError(f"there is no seed {index}: the object has {len(self.seeds)}")
        count = len(obj.seeds)
        if index < count:
            rest = (*obj.seeds[:index], *obj.seeds[index + 1 :])
            self._advance(editor.change(obj, seeds=rest))
            return
        seed = obj.placed[index - count]
        placed = [other for other in obj.placed if other is not seed]
        self._advance(editor.reject(editor.change(obj, placed=placed), seed))

    def move_seed(self, index: int, points_world: ArrayLike) -> None:
        """Put one of the user's seeds elsewhere.

        Args:
            index: Its place in :attr:`seeds`.
            points_world: (3,) or (P, 3), RAS mm.

        Raises:
            MedrlError: If there is no such seed of the user's, it cannot be there, see
                :meth:`add_seed`, or the object is locked.
        """
        editor, obj = self._ready(), self._changing()
        if not 0 <= index < len(obj.seeds):
            raise MedrlError(f"there is no seed {index} of yours: you have {len(obj.seeds)}")
        moved = Seed(np.asarray(points_world), obj.seeds[index].label)
        others = [*obj.seeds[:index], *obj.seeds[index + 1 :]]
        self._output_grid.check_place(moved, obj.limits_world)
        self._output_grid.check_agreement(moved, others)
        seeds = (*obj.seeds[:index], moved, *obj.seeds[index + 1 :])
        self._advance(editor.change(obj, seeds=seeds))

    def edit(self, region: Any, label: int | str) -> None:
        """Paint over the mask: these voxels keep this label, and what follows adapts to them.

        Args:
            region: (I, J, K) bool, or (1, I, J, K), in the scan's grid. A seed on one of its voxels
                keeps its own label; of two edits the later one counts.
            label: ``fg`` or ``bg``.

        Raises:
            MedrlError: If the region is empty or of another shape, or the object is locked.
        """
        editor = self._ready()
        number = as_label(label)
        where = np.asarray(region, dtype=bool)
        where = where[0] if where.ndim == 4 else where
        output_grid = self._output_grid
        if where.shape != output_grid.shape:
            raise MedrlError(
                f"the region must be of the scan's shape {output_grid.shape}, not {where.shape}"
            )
        voxels = np.argwhere(where)
        if not len(voxels):
            raise MedrlError("the region to edit is empty")
        obj = self._changing()
        edit = Edit(voxels, voxel_to_world(voxels, output_grid.affine), number)
        self._advance(editor.change(obj, edits=(*obj.edits, edit)))

    def set_limits(self, corners_world: ArrayLike | None) -> None:
        """Confine the current object to a box along the axes of the body.

        Args:
            corners_world: (2, 3) RAS mm, any two opposite corners; None for no limits.

        Raises:
            MedrlError: If a seed lies outside it, or the object is locked.
        """
        editor = self._ready()
        obj = self._changing()
        limits = None
        if corners_world is not None:
            corners = np.asarray(corners_world, dtype=np.float64)
            if corners.shape != (2, 3) or not np.isfinite(corners).all():
                raise MedrlError("limits are two opposite corners of a box, three numbers each")
            limits = np.sort(corners, axis=0)
            for seed in obj.seeds:
                self._output_grid.check_place(seed, limits)
        self._advance(editor.limit(obj, limits))

    def undo(self) -> None:
        """Take back the last change to the current object.

        Raises:
            MedrlError: If there is none, or the object is locked.
        """
        self._open().undo()

    def redo(self) -> None:
        """Make the change again that was taken back last.

        Raises:
            MedrlError: If there is none, or the object is locked.
        """
        self._open().redo()

    @property
    def can_undo(self) -> bool:
        """Whether the current object has a change to take back."""
        return bool(self._current) and bool(self._objects[self._current].past)

    @property
    def can_redo(self) -> bool:
        """Whether the current object has a change to make again."""
        return bool(self._current) and bool(self._objects[self._current].future)

    # ---- the agent's part

    def propose(self) -> Proposal | None:
        """What the agent would do next; nothing changes.

        Returns:
            The seed, or None if the agent expects nothing of another one or has used up its own.

        Raises:
            MedrlError: If there is no foreground seed yet.
        """
        candidate = self._candidate()
        if candidate is None:
            return None
        seed = candidate.seed
        return Proposal(seed.position_world, seed.label, seed.expected_gain)

    def accept(self) -> None:
        """Place the seed that :meth:`propose` gives.

        Raises:
            MedrlError: If there is none, or the object is locked.
        """
        candidate = self._wanted_candidate()
        self._advance(self._ready().accept(self._current_state(), candidate))

    def reject(self) -> None:
        """Veto the seed that :meth:`propose` gives.

        Raises:
            MedrlError: If there is none, or the object is locked.
        """
        candidate = self._wanted_candidate()
        self._advance(self._ready().reject(self._current_state(), candidate.seed))

    def accept_all(
        self,
        *,
        max_seeds: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> tuple[Proposal, ...]:
        """Let the agent place seeds until it stops: one step to undo.

        Args:
            max_seeds: Stop after this many; as many as the model was trained to place if None.
            progress: Called with the seeds placed so far and the most there can be.
            watch: Called after every seed, when :meth:`mask` and the rest show it already. What it
                raises ends the run and comes out of it; the seeds placed by then stay.

        Returns:
            What it placed.

        Raises:
            MedrlError: If there is no foreground seed yet, or the object is locked.
        """
        self._segmented()
        history = self._open()
        editor, before = self._ready(), history.obj
        obj = kept = before
        done: list[Proposal] = []
        try:
            while max_seeds is None or len(done) < max_seeds:
                candidate = editor.propose(obj)
                if candidate is None:
                    obj = editor.stop(obj)
                    break
                obj = editor.accept(obj, candidate)
                seed = candidate.seed
                done.append(Proposal(seed.position_world, seed.label, seed.expected_gain))
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

    # ---- what the model sees

    def view(self, seeds: Sequence[Seed] | None = None) -> WindowView:
        """The window in which the current object is segmented, for whoever compares methods.

        Args:
            seeds: Show these instead of the user's; the window stays.

        Raises:
            MedrlError: If the object has no foreground seed yet.
        """
        obj = self._segmented()
        return self._ready().view(obj if seeds is None else replace(obj, seeds=tuple(seeds)))

    def mask_of(self, probability: Tensor) -> NDArray[np.bool_]:
        """A probability (1, I, J, K) on that window as a mask (I, J, K) in the scan's own grid.

        Raises:
            MedrlError: If the object has no foreground seed yet.
        """
        obj = self._segmented()
        assert obj.state is not None
        other = replace(obj, state=replace(obj.state, probability=probability))
        values = self._output_grid.probability(other, self._ready().grid.affine)
        return np.asarray(values > 0.5)

    # ---- the answer

    def mask(self, name: str | None = None) -> MetaTensor:
        """The segmentation in the scan's own grid.

        Args:
            name: Of the object; the current one if None.

        Returns:
            MetaTensor (1, I, J, K) uint8 of 0 and 1, with the scan's affine.

        Raises:
            MedrlError: If the object has no foreground seed yet.
        """
        obj = self._segmented(name)
        values = self._output_grid.probability(obj, self._ready().grid.affine)
        return self._as_scan((values > 0.5).astype(np.uint8))

    def probability(self, name: str | None = None) -> MetaTensor:
        """The probability of foreground in the scan's own grid, exactly 0 or 1 at the user's seeds.

        Args:
            name: Of the object; the current one if None.

        Returns:
            MetaTensor (1, I, J, K) float32, with the scan's affine; 0 outside the window.

        Raises:
            MedrlError: If the object has no foreground seed yet.
        """
        obj = self._segmented(name)
        values = self._output_grid.probability(obj, self._ready().grid.affine)
        return self._as_scan(values)

    def labels(self) -> MetaTensor:
        """All objects in one map.

        Where objects overlap, a locked one comes first, then one whose seed is there, then the
        later one.

        Returns:
            MetaTensor (1, I, J, K) uint8: 0, and 1 for the first of :attr:`objects`, and so on;
            ``meta["labels"]`` gives the numbers by name. With the scan's affine.

        Raises:
            MedrlError: If no object has a foreground seed, or there are more than 255.
        """
        values = label_map(self._objects, self._output_grid, self._ready().grid.affine)
        labelled = self._as_scan(values)
        labelled.meta["labels"] = {name: n for n, name in enumerate(self._objects, 1)}
        return labelled

    def outcome(self, name: str | None = None) -> str:
        """How the agent's work on an object stands, in words."""
        return self._named(name).outcome

    def trajectory(self) -> Trajectory:
        """The agent's seeds: a path for every object, a step for every seed that was accepted.

        Actions are labels, values the expected gains in Dice.
        """
        spacing = self.model.settings.spacing
        agents = tuple(agent_path(n, t, spacing) for n, t in self._objects.items())
        made_by = provenance(self.manifest, *self._images.values())
        return Trajectory("seednet", agents, made_by)

    # ---------------------------------------------------------------------------------------------

    def _ready(self) -> Editor:
        if self._editor is None:
            raise MedrlError("the session has no scan yet: set_scan() first")
        return self._editor

    def _as_scan(self, values: NDArray[Any]) -> MetaTensor:
        """An array (I, J, K) with the scan's affine."""
        affine = torch.from_numpy(self._output_grid.affine.copy())
        return MetaTensor(torch.from_numpy(values)[None], affine=affine)

    def _named(self, name: str | None) -> History:
        name = self._current if name is None else name
        if name not in self._objects:
            there = ", ".join(self._objects) or "none yet"
            raise MedrlError(f"there is no object {name!r}; there are: {there}")
        return self._objects[name]

    def _current_state(self) -> ObjectState:
        self._ready()
        if not self._current:
            raise MedrlError("place a foreground seed first")
        return self._objects[self._current].obj

    def _changing(self) -> ObjectState:
        """The current object's state, if it may be changed; an empty one if there is no object."""
        self._ready()
        return self._open().obj if self._current else ObjectState(0)

    def _open(self) -> History:
        """The current object's history, if it may be changed."""
        self._current_state()
        history = self._objects[self._current]
        if history.locked:
            raise MedrlError(f"the object {self._current!r} is locked: unlock it first")
        return history

    def _advance(self, obj: ObjectState) -> None:
        """Make a new state the current one; the object too if there is none."""
        if not self._current:
            self.new_object()
        self._objects[self._current].advance(obj)

    def _segmented(self, name: str | None = None) -> ObjectState:
        if name is None:
            self._current_state()
        obj = self._named(name).obj
        if obj.state is None:
            raise MedrlError("place a foreground seed first")
        return obj

    def _candidate(self) -> Candidate | None:
        obj = self._segmented()
        if self._proposal is None or self._proposal[0] is not obj:
            candidate = self._ready().propose(obj)
            self._proposal = None if candidate is None else (obj, candidate)
            return candidate
        return self._proposal[1]

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

    def _wanted_candidate(self) -> Candidate:
        self._segmented()
        self._open()
        candidate = self._candidate()
        if candidate is None:
            raise MedrlError("the agent proposes nothing: it has stopped")
        return candidate
