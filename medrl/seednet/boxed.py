"""The first seed of an object that only a box is known of."""

from __future__ import annotations

import numpy as np
from monai.data.meta_tensor import MetaTensor
from scipy import ndimage

from medrl.errors import MedrlError
from medrl.seednet.editor import Editor
from medrl.seednet.objects import Inputs, Segmented
from medrl.seednet.seeds import Seed
from medrl.volume.boxes import crop_to_box
from medrl.volume.space import as_affine, spacing_of, voxel_to_world, voxels_in_box
from medrl.walker.segmenter import FOREGROUND

#: How deep in the object the seed lies at least, as a share of the deepest place.
_DEPTH = 0.5


def first_seed(editor: Editor, scan: MetaTensor, obj: Inputs) -> Seed:
    """Where to click for an object that lies in a box.

    The middle of a box may lie beside what is in it. A trial with a seed there tells what the model
    takes for the object; the seed is the voxel nearest to the middle of those that lie in it at
    least half as deep as the deepest.

    Args:
        editor: Of the scan.
        scan: MetaTensor (1, I, J, K) in whose grid masks come.
        obj: With limits and without a foreground seed.

    Returns:
        A foreground seed in the middle of a voxel in the limits.

    Raises:
        MedrlError: If the limits hold no voxel of the scan, or nothing is to be seen there.
    """
    assert obj.limits_world is not None  # who calls has set them
    part = crop_to_box(scan, obj.limits_world)
    affine, (i, j, k) = as_affine(part.affine), part.shape[1:]
    inside = voxels_in_box(obj.limits_world, affine, (i, j, k))
    if not inside.any():
        raise MedrlError("the box holds the middle of no voxel of the scan")
    middle = obj.limits_world.mean(axis=0)

    def nearest(where: np.ndarray) -> Seed:
        points = voxel_to_world(np.argwhere(where), affine)
        return Seed(points[np.linalg.norm(points - middle, axis=1).argmin()], FOREGROUND)

    trial = editor.change(obj, seeds=(*obj.seeds, nearest(inside)))
    assert isinstance(trial, Segmented)  # there is a foreground seed
    whole = MetaTensor(editor.output.probability(trial)[None], affine=scan.affine)
    taken = crop_to_box(whole, obj.limits_world)[0].numpy() > 0.5
    # Beyond the box there is no object.
    depth = ndimage.distance_transform_edt(np.pad(taken, 1), sampling=spacing_of(affine))
    depth = depth[1:-1, 1:-1, 1:-1]
    return nearest(depth >= _DEPTH * depth.max())
