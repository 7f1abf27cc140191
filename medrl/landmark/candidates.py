"""What is found in a scan before it is judged, and how a scan is made ready for that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from numpy.typing import NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.landmark.turning import Turning
from medrl.trajectory import AgentPath
from medrl.volume.pose import Pose
from medrl.volume.pyramid import Pyramid, build_pyramid
from medrl.volume.space import depth_inside, world_to_voxel
from medrl.volume.validation import check_volume, in_hounsfield

if TYPE_CHECKING:
    from medrl.landmark.judging import Model

Array = NDArray[np.float64]
Status = Literal["found", "absent", "corrected", "by hand"]


@dataclass(eq=False)
class Candidates:
    """What the agents found in a scan, before anyone says how sure it is; K landmarks of the model.

    Attributes:
        scan: The scan.
        seen: As it was searched, before normalisation: the scan itself, or what was laid straight.
        positions_world: (K, 3) RAS mm.
        features: (K, F), see :data:`medrl.landmark.confidence.FEATURES`.
        status: Of each landmark.
        notes: Of each landmark; empty where nothing is unusual.
        strangeness: (K,) how far what the finest network sees around each answer is from what it
            saw in training (:mod:`medrl.nets.familiarity`); NaN where nobody has looked.
        paths: Of the agents that were to be recorded, by landmark.
        windows: How many went through a network.
        turned_deg: By which angle the scan was turned to lie straight, if scans that lie otherwise
            are unusual.
        pose_sure: Whether it is sure that it lies so.
    """

    scan: MetaTensor
    seen: MetaTensor
    positions_world: Array
    features: Array
    status: list[Status]
    notes: list[str]
    strangeness: Array
    paths: dict[str, AgentPath] = field(default_factory=dict)
    windows: int = 0
    turned_deg: float = 0.0
    pose_sure: bool = True


class Prepared(NamedTuple):
    """A scan in which landmarks can be looked for.

    Attributes:
        pyramid: Laid straight if the model has a frame, and then in the scan's own world.
        start: (K, 3) where agents start, voxels of the finest scale.
        seen: As :attr:`Candidates.seen`.
        turned_deg: As :attr:`Candidates.turned_deg`.
        pose_sure: As :attr:`Candidates.pose_sure`.
    """

    pyramid: Pyramid
    start: Tensor
    seen: MetaTensor
    turned_deg: float = 0.0
    pose_sure: bool = True


class Preparation:
    """Makes scans ready for a model, and refuses those it cannot be for."""

    def __init__(
        self, model: Model, *, name: str, device: torch.device, turning: Turning | None = None
    ) -> None:
        """Be ready.

        Args:
            model: The model.
            name: What errors call it.
            device: Where pyramids go.
            turning: Says how a scan lies, of a model whose frame has no template.
        """
        self._model = model
        self._name = name
        self._device = device
        self._turning = turning

    def __call__(self, scan: MetaTensor, *, as_given: bool = False) -> Prepared | MedrlError:
        """What is searched of a scan (1, I, J, K), or why it cannot be.

        Args:
            scan: The scan.
            as_given: Do not ask the networks how it lies.
        """
        settings, frame = self._model.settings, self._model.frame
        pose: Pose | None = None
        sure = True
        try:
            check_volume(scan)
            if settings.modality == "MR" and in_hounsfield(scan):
                raise MedrlError(
                    "this looks like a CT (values in Hounsfield units), but the model "
                    f"{self._name} was trained on MRI"
                )
            if frame is not None and frame.template is not None:
                pose = frame.template.find(scan, settings.preprocessing.normalize())
            else:
                pyramid = self._pyramid(scan)
                if self._turning is not None and not as_given:
                    pose, sure = self._turning.find(pyramid)
            if frame is not None and pose is not None:
                laid = frame.seen(scan, pose.matrix)
                pyramid = self._pyramid(laid)
        except MedrlError as error:
            return error
        if frame is None or pose is None:
            middle = torch.tensor(pyramid.levels[0].shape[1:]).float() / 2
            return Prepared(pyramid, middle.expand(len(self._model.names), 3), scan)
        start = torch.from_numpy(world_to_voxel(frame.expected, pyramid.affines[0])).float()
        pyramid = pyramid.moved(np.asarray(np.linalg.inv(pose.matrix), dtype=np.float64))
        turned_deg = 0.0 if frame.template is not None else pose.turn_deg
        return Prepared(pyramid, start, laid, turned_deg, sure)

    def inside(self, scan: MetaTensor, positions_world: Array) -> NDArray[np.bool_]:
        """What is found nearer to a face than half a voxel is as likely beyond it."""
        depth = depth_inside(positions_world, scan.affine, tuple(scan.shape[1:]))
        return np.asarray(depth >= self._model.settings.spacings[0] / 2)

    def _pyramid(self, scan: MetaTensor) -> Pyramid:
        settings = self._model.settings
        pyramid = build_pyramid(settings.preprocessing(scan), spacings=settings.spacings)
        return pyramid.to(self._device)


def of_usable(
    prepared: Sequence[Prepared | MedrlError],
    find: Callable[[list[Prepared], list[int]], list[Candidates]],
) -> list[Candidates | MedrlError]:
    """What is found in the scans that can be searched, in the order of all.

    Args:
        prepared: Scans, or why they cannot be searched.
        find: Called with those that can, and their numbers, if there are any.
    """
    numbers = [n for n, one in enumerate(prepared) if isinstance(one, Prepared)]
    usable = [one for one in prepared if isinstance(one, Prepared)]
    found = dict(zip(numbers, find(usable, numbers), strict=True)) if usable else {}
    return [one if isinstance(one, MedrlError) else found[n] for n, one in enumerate(prepared)]
