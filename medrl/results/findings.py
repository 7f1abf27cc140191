"""What a result holds, in terms that any viewer can show without knowing the system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor


@dataclass(frozen=True, eq=False)
class Points:
    """Named points.

    Attributes:
        names: P of them.
        positions_world: (P, 3) RAS mm.
        confidence: (P,) 0 to 1, NaN where unknown; or None.
    """

    names: tuple[str, ...]
    positions_world: NDArray[np.float64]
    confidence: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Mask:
    """Objects as labels.

    Attributes:
        labels: (1, I, J, K) whole numbers with the scan's affine; 0 is background.
        names: What each label is.
    """

    labels: MetaTensor
    names: dict[int, str]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Named boxes along the world's axes.

    Attributes:
        names: B of them.
        corners_world: (B, 2, 3) smallest and largest coordinates, RAS mm.
    """

    names: tuple[str, ...]
    corners_world: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Motion:
    """A scan that is to be moved.

    Attributes:
        role: Which of the inputs.
        transform_world: (4, 4) from the world in which it is to be shown to its own, RAS mm.
    """

    role: str
    transform_world: NDArray[np.float64]


Finding = Points | Mask | Boxes | Motion
