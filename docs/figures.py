"""Make the pictures of the documentation again: `python docs/figures.py`, offline.

They show the MNI152 average head that nilearn brings (extra ``samples``), never a subject.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from monai.data.meta_tensor import MetaTensor
from PIL import Image
from torch import Generator

from medrl import LandmarkDetector, read
from medrl.cli import main as medrl
from medrl.cli.demo import write_template
from medrl.landmark.picture import draw_detection
from medrl.registration.cases import make_case
from medrl.results.picture import save_picture
from medrl.volume.pyramid import build_pyramid
from medrl.volume.read import write_nifti
from medrl.volume.space import world_to_voxel

IMAGES = Path(__file__).parent / "images"
LANDMARK = "Putamen_L_centroid"
#: Inside the left hippocampus, RAS mm.
CLICK_WORLD = (-25.5, -21.0, -14.0)
#: Of the pose and contrast of the copy that is registered.
SEED = 3


def main() -> None:
    """Write `demo.png`, `search.png`, `segment.png` and `register.png`."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder) / "mni152_t1.nii.gz"
        write_template(head)
        scan = read(head)
        draw_segmentation(IMAGES / "segment.png", head)
        draw_registration(IMAGES / "register.png", head)
    detector = LandmarkDetector.load("brain-t1")
    detection = detector.detect(scan)
    picture = draw_detection(scan, detection, title="MNI152 T1 template")
    save_picture(IMAGES / "demo.png", picture)
    draw_search(IMAGES / "search.png", scan, detector)


def draw_segmentation(path: Path, head: Path) -> None:
    """The left hippocampus from one click, as `medrl segment` draws it."""
    click = "fg:" + ",".join(str(value) for value in CLICK_WORLD)
    with tempfile.TemporaryDirectory() as folder:
        medrl(["segment", str(head), "--seed", click, "-o", folder])
        path.write_bytes((Path(folder) / "mni152_t1.png").read_bytes())


def draw_registration(path: Path, head: Path) -> None:
    """A copy in any orientation and another contrast, as `medrl register` draws it."""
    case = make_case(head, turn=None, shift=30.0, generator=Generator().manual_seed(SEED))
    with tempfile.TemporaryDirectory() as folder:
        moving = Path(folder) / "turned.nii.gz"
        write_nifti(moving, case.moving)
        medrl(["register", str(head), str(moving), "-o", folder])
        picture = Image.open(Path(folder) / "turned_to_mni152_t1.before-after.png")
        # 256 colours are a third of the size, and look the same.
        picture.convert("RGB").quantize(256).save(path, optimize=True)


def draw_search(path: Path, scan: MetaTensor, detector: LandmarkDetector) -> None:
    """One agent's search: a panel for each scale, with what it sees first and where it goes."""
    settings = detector.model.settings
    detection = detector.detect(scan, landmarks=[LANDMARK])
    (agent,) = detection.trajectory.agents
    prepared = settings.preprocessing.chain()(scan)
    pyramid = build_pyramid(prepared, spacings=settings.spacings)
    figure = Figure(figsize=(12, 4.4), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    for panel, level in enumerate(reversed(range(len(pyramid.levels)))):
        spacing = pyramid.spacings[level]
        own = np.isclose(agent.scales_mm, spacing)
        path_voxel = world_to_voxel(agent.positions_world[own], pyramid.affines[level])
        answer = world_to_voxel(agent.answer_world, pyramid.affines[level])
        volume = pyramid.levels[level][0].numpy()
        axes = figure.add_subplot(1, len(pyramid.levels), panel + 1)
        depth = int(np.clip(round(path_voxel[-1, 1]), 0, volume.shape[1] - 1))
        axes.imshow(volume[:, depth].T, origin="lower", cmap="gray", interpolation="nearest")
        half = settings.window / 2
        corner = path_voxel[0, [0, 2]] - half
        axes.add_patch(
            Rectangle(corner, settings.window, settings.window, fill=False, color="gold", lw=1.5)
        )
        axes.plot(path_voxel[:, 0], path_voxel[:, 2], "-", color="deepskyblue", lw=1.5)
        axes.plot(path_voxel[:, 0], path_voxel[:, 2], ".", color="deepskyblue", ms=5)
        axes.plot(*path_voxel[0, [0, 2]], "s", color="gold", ms=6)
        axes.plot(answer[0], answer[2], "+", color="red", ms=14, mew=2)
        axes.set_title(f"{spacing:g} mm: {len(path_voxel)} looks", color="white")
        axes.set_axis_off()
        reach = settings.window * 0.62
        if level < len(pyramid.levels) - 1:
            axes.set_xlim(path_voxel[0, 0] - reach, path_voxel[0, 0] + reach)
            axes.set_ylim(path_voxel[0, 2] - reach, path_voxel[0, 2] + reach)
    figure.savefig(path, dpi=100, facecolor="black")


if __name__ == "__main__":
    main()
