"""MONAI transforms around :func:`medrl.roi.crop`: one window, affine kept, invertible."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.transform import MapTransform
from monai.utils.enums import TraceKeys, TransformBackends
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from medrl.errors import MedrlError
from medrl.roi.cropping import crop
from medrl.roi.request import window_size
from medrl.volume.pyramid import Pyramid
from medrl.volume.space import world_to_voxel

Space = Literal["voxel", "world"]

_WHOLE = 1e-6
"""A center this close to a voxel's, in voxels, is that voxel: a trip through world costs digits."""


class CropRoi(InvertibleTransform):
    """Crop a window around a point, padded with background where it leaves the scan.

    The result always has the size asked for, float32. Its affine maps the window's voxels to the
    same world points (RAS mm) as the scan's own. Windows around whole-voxel centers without
    rotation are copies, all others are interpolated trilinearly, see :func:`medrl.roi.crop`.

    :meth:`inverse` puts a window back into the grid it was cut from, background around it: exactly
    for copies, as MONAI's ``SpatialCrop`` does, and interpolated for the rest.

    Args:
        size: Window size in voxels, one number or three.
        center: Center (3,), for all calls that give none.
        space: Space of the centers: voxel indices (i, j, k), or world (RAS mm).
        whole_voxels: Move centers to the nearest voxel, so that values are copied. For masks.
        background: Value outside the scan; pyramids bring their own.
    """

    backend = (TransformBackends.TORCH,)

    def __init__(
        self,
        size: int | Sequence[int],
        *,
        center: ArrayLike | Tensor | None = None,
        space: Space = "voxel",
        whole_voxels: bool = False,
        background: float = 0.0,
    ) -> None:
        if space not in ("voxel", "world"):
            raise MedrlError(f'space must be "voxel" or "world", not "{space}"')
        self.size = window_size(size)
        self.center = center
        self.space = space
        self.whole_voxels = whole_voxels
        self.background = background

    def __call__(
        self,
        img: Tensor | Pyramid,
        center: ArrayLike | Tensor | None = None,
        *,
        rotation: ArrayLike | Tensor | None = None,
        level: int = 0,
    ) -> Tensor:
        """Crop one window.

        Args:
            img: Scan (C, I, J, K), a MetaTensor if its affine is to be kept, or a pyramid.
            center: Center (3,) in the space chosen; by default the one given to the class.
            rotation: (3, 3), maps window offsets to voxel offsets.
            level: Pyramid level to crop; a voxel center is in the voxels of this level.

        Returns:
            Window (C, SI, SJ, SK), float32: a MetaTensor unless MONAI's tracking is off.

        Raises:
            MedrlError: If there is no center, or shapes or numbers are not usable.
        """
        scan, pyramid = self._as_pyramid(img, level)
        position = self._center_voxel(self.center if center is None else center, scan)
        turn = None if rotation is None else _numbers(rotation, (3, 3), "rotation")
        turns = None if turn is None else turn[None]
        window = crop(pyramid, position[None], self.size, level=level, rotation=turns)[0]
        if not get_track_meta():
            return window
        tracked = MetaTensor(window).copy_meta_from(scan)
        return self.push_transform(
            tracked,
            affine=torch.from_numpy(_window_to_scan(position, turn, self.size)),
            orig_size=tuple(scan.shape[1:]),
            extra_info={
                "center": position,
                "rotation": np.eye(3) if turn is None else turn,
                "rotated": turn is not None,
                "background": float(pyramid.background),
            },
        )

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Put a window back into the grid it was cut from.

        Args:
            data: Window (C, SI, SJ, SK) that this transform made; its values may have changed.

        Returns:
            (C, I, J, K) on the grid of the scan, background outside the window.

        Raises:
            MedrlError: If the window's size changed, or its rotation cannot be undone.
        """
        step = self.pop_transform(data)
        if tuple(data.shape[1:]) != self.size:
            raise MedrlError(
                f"only a window of size {self.size} can be put back, not {tuple(data.shape[1:])}"
            )
        info = step[TraceKeys.EXTRA_INFO]
        shape = tuple(int(n) for n in step[TraceKeys.ORIG_SIZE])
        center, turn = np.asarray(info["center"]), np.asarray(info["rotation"])
        try:
            back = np.linalg.inv(turn)
        except np.linalg.LinAlgError as error:
            raise MedrlError("a crop by a singular rotation matrix cannot be undone") from error
        # The scan is itself a window of the window: the same crop, the other way round.
        middle = np.array(self.size) // 2 + back @ (np.array(shape) // 2 - center)
        window = Pyramid(
            (data.as_tensor().to(torch.float32),), (1.0,), (np.eye(4),), float(info["background"])
        )
        turns = back[None] if info["rotated"] else None
        whole = MetaTensor(crop(window, middle[None], shape, rotation=turns)[0])
        whole.copy_meta_from(data)
        to_scan = _window_to_scan(center, turn if info["rotated"] else None, self.size)
        to_window = torch.from_numpy(np.linalg.inv(to_scan))
        whole.affine = data.affine.to(torch.float64).cpu() @ to_window
        return whole

    def _as_pyramid(self, img: Tensor | Pyramid, level: int) -> tuple[MetaTensor, Pyramid]:
        """The level to crop as a MetaTensor, and the pyramid it is in."""
        if isinstance(img, Pyramid):
            if not 0 <= level < len(img.levels):
                raise MedrlError(f"the pyramid has {len(img.levels)} levels, not level {level}")
            affine = torch.from_numpy(np.asarray(img.affines[level], dtype=np.float64))
            return MetaTensor(img.levels[level], affine=affine), img
        if level:
            raise MedrlError("a scan has level 0 only: give a pyramid to crop at others")
        scan = img if isinstance(img, MetaTensor) else MetaTensor(torch.as_tensor(img))
        if scan.ndim != 4:
            raise MedrlError(f"a scan must be (C, I, J, K), not {tuple(scan.shape)}")
        volume = scan.as_tensor().to(torch.float32)
        return scan, Pyramid((volume,), (1.0,), (np.eye(4),), self.background)

    def _center_voxel(
        self, center: ArrayLike | Tensor | None, scan: MetaTensor
    ) -> NDArray[np.float64]:
        if center is None:
            raise MedrlError("CropRoi needs a center, given to the class or to the call")
        position = _numbers(center, (3,), "center")
        if self.space == "world":
            position = world_to_voxel(position, scan.affine.cpu().numpy())
        nearest = np.rint(position)
        return np.where(self.whole_voxels | (abs(position - nearest) < _WHOLE), nearest, position)


class CropRoid(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`CropRoi`.

    Args:
        keys: Keys of the scans.
        size: Window size in voxels, one number or three.
        center: Center (3,), or the key that holds it.
        rotation: (3, 3), or the key that holds it; none by default.
        space: Space of the centers: voxel indices (i, j, k), or world (RAS mm).
        whole_voxels: Move centers to the nearest voxel, so that values are copied. For masks.
        background: Value outside the scan; pyramids bring their own.
        level: Pyramid level to crop, where the keys hold pyramids.
        allow_missing_keys: Do not raise if a key is missing.
    """

    backend = CropRoi.backend

    def __init__(
        self,
        keys: KeysCollection,
        size: int | Sequence[int],
        *,
        center: str | ArrayLike | Tensor,
        rotation: str | ArrayLike | Tensor | None = None,
        space: Space = "voxel",
        whole_voxels: bool = False,
        background: float = 0.0,
        level: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.cropper = CropRoi(size, space=space, whole_voxels=whole_voxels, background=background)
        self.center = center
        self.rotation = rotation
        self.level = level

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the window of every key; the other entries stay as they are."""
        result = dict(data)
        center = data[self.center] if isinstance(self.center, str) else self.center
        rotation = data[self.rotation] if isinstance(self.rotation, str) else self.rotation
        for key in self.key_iterator(result):
            result[key] = self.cropper(result[key], center, rotation=rotation, level=self.level)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Put the windows back into the grids they were cut from."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.cropper.inverse(result[key])
        return result


def _window_to_scan(
    center: NDArray[np.float64], rotation: NDArray[np.float64] | None, size: tuple[int, int, int]
) -> NDArray[np.float64]:
    """4x4 matrix from voxels of the window to voxels of the scan."""
    matrix = np.eye(4)
    if rotation is not None:
        matrix[:3, :3] = rotation
    matrix[:3, 3] = center - matrix[:3, :3] @ (np.array(size) // 2)
    return matrix


def _numbers(values: ArrayLike | Tensor, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    array = np.asarray(values.cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise MedrlError(f"{name} must be {shape} finite numbers, not {array.tolist()}")
    return array
