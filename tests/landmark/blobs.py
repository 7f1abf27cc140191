"""Scans of two blobs, for trainings of a few seconds."""

import json

import nibabel as nib
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from medrl.data.augment import Augmentation
from medrl.landmark.data import LabelledScan
from medrl.landmark.learner import LearnerSettings

STILL = Augmentation(pose_probability=0, crop_probability=0.2, scanner_probability=0.2)
SMALL = LearnerSettings(
    spacings=(2.0, 8.0),
    window=9,
    channels=(8, 16),
    features=32,
    batch=64,
    slots=6,
    refresh_every=8,
    agents=32,
    replay=2048,
    augmentation=STILL,
)


def blob_scan(rng, shape=(32, 36, 30)):
    """A bright and a dark blob at random places (voxels) in noise."""
    points = rng.uniform(8, np.array(shape) - 8, size=(2, 3))
    volume = np.zeros(shape, dtype=np.float32)
    for point, height in zip(points, (1.0, -0.5), strict=True):
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        volume += height * np.exp(-(((grid - point) / 4) ** 2).sum(-1)).astype(np.float32)
    return 100 * volume + gaussian_filter(rng.normal(size=shape), 1).astype(np.float32) + 60, points


def write_datalist(folder):
    """Blobs in files, their places, and the datalist of both."""
    rng = np.random.default_rng(0)
    content = {"training": [], "validation": [], "test": []}
    for split, count in (("training", 10), ("validation", 2), ("test", 4)):
        for n in range(count):
            volume, points = blob_scan(rng)
            name = f"{split}{n}"
            nib.save(nib.Nifti1Image(volume, np.diag([2.0, 2, 2, 1])), folder / f"{name}.nii.gz")
            bright, dark = 2 * points
            lines = ["name,x,y,z", "bright,{},{},{}".format(*bright), "dark,{},{},{}".format(*dark)]
            (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
            content[split].append({"image": f"{name}.nii.gz", "landmarks": f"{name}.csv"})
    path = folder / "datalist.json"
    path.write_text(json.dumps(content))
    return path


def some_scans():
    rng = np.random.default_rng(5)
    scans = []
    for n in range(4):
        volume, points = blob_scan(rng)
        scans.append(
            LabelledScan(str(n), torch.from_numpy(volume)[None], torch.from_numpy(points).float())
        )
    return scans
