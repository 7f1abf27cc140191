"""How long until a 256^3 scan is on napari's screen, and until the first agents walk in it.

Next to napari itself, which is given the same voxels as a bare array, in the same run and in the
same kind of window: what reading the file costs is left out of both. And how much memory it takes
to open a scan, search it and look at it in three views. A virtual screen draws (Mesa's llvmpipe, so
the processor does what a graphics card would).
"""

from __future__ import annotations

import argparse
import threading
import time
from typing import Any

import numpy as np
import psutil
import torch
from evaluation.results import RESULTS, print_table, save
from monai.data.meta_tensor import MetaTensor
from pyvirtualdisplay import Display

CLAIM = "napari shows and searches a large scan at once (software rendering)"
SIDE, ROUNDS = 256, 5
#: Seconds until agents walk, and memory over the scan's own.
TARGET_S, TARGET_MEMORY = 2.0, 4.0


class Peak(threading.Thread):
    """Watches how much memory the process holds, in MiB, and keeps the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.most = 0.0

    def run(self) -> None:
        """Look every 10 ms."""
        process = psutil.Process()
        while not self._over.wait(0.01):
            self.most = max(self.most, process.memory_info().rss / 2**20)

    def end(self) -> float:
        """Stop watching; the most there was."""
        self._over.set()
        self.join()
        return self.most


def head(side: int = SIDE) -> MetaTensor:
    """The MNI152 template on a grid of 256^3 voxels, or another one of the same extent."""
    from nilearn.datasets import load_mni152_template

    from medrl.volume.resample import resample_onto

    template = load_mni152_template(resolution=1)
    volume = torch.from_numpy(template.get_fdata(dtype=np.float32))[None]
    affine = np.diag([*[0.8 * SIDE / side] * 3, 1.0])
    affine[:3, 3] = (-102.0, -120.0, -84.0)
    scan = MetaTensor(volume, affine=torch.from_numpy(template.affine))
    return resample_onto(scan, affine=affine, shape=(side, side, side))


def until(condition: Any, seconds: float = 120.0) -> None:
    """Let the window live until something is so."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise TimeoutError("the window waits for something that does not come")
        QApplication.processEvents()
        # As Qt's own loop does; without it the agents would wait for this one.
        time.sleep(0.002)


def bare(viewer: Any, scan: MetaTensor) -> float:
    """Seconds until napari shows the voxels as an array."""
    start = time.perf_counter()
    viewer.add_image(scan.numpy()[0])
    viewer.screenshot(canvas_only=True, flash=False)
    return time.perf_counter() - start


def opened(viewer: Any, scan: MetaTensor) -> tuple[float, float, float]:
    """Seconds until the scan is drawn, until agents walk, and until they are done."""
    from medrl_napari.detect.widget import DetectWidget
    from medrl_napari.readers import scan_layers_of
    from medrl_napari.scans import add

    start = time.perf_counter()
    for layer in scan_layers_of(scan, None, name="head"):
        add(viewer, layer)
    viewer.screenshot(canvas_only=True, flash=False)
    shown = time.perf_counter() - start
    widget = DetectWidget(viewer)
    viewer.window.add_dock_widget(widget)
    ended: list[Any] = []
    widget.finished.connect(ended.append)
    widget.run_button.click()
    until(lambda: any(layer.name.endswith("paths") for layer in viewer.layers))
    walking = time.perf_counter() - start
    until(lambda: bool(ended))
    return shown, walking, time.perf_counter() - start


def look(scan: MetaTensor) -> None:
    """Open a scan, search it, and look at it in three views."""
    import napari

    from medrl_napari.views.widget import OrthoViews

    viewer = napari.Viewer()
    opened(viewer, scan)
    viewer.window.add_dock_widget(OrthoViews(viewer))
    viewer.screenshot(canvas_only=True, flash=False)
    viewer.close()


def measured(result: dict[str, Any]) -> str:
    """Seconds until a scan is shown and searched, and memory."""
    return (
        f"{result['scan']}: {result['drawn_over_napari']:.2f} of napari's own time for the bare "
        f"array; agents walk after {result['agents_walk_s']:.1f} s; at most "
        f"{result['peak_memory_over_scan']:.1f} times the scan's memory"
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write the committed result")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    with Display(visible=False, size=(1600, 1200)):
        import napari

        scan = head()
        scan_mib = scan.numel() * 4 / 2**20
        # What is needed once, however large the scan: libraries, the model, compiled kernels.
        look(head(64))
        process = psutil.Process()
        before = process.memory_info().rss / 2**20
        peak = Peak()
        peak.start()
        look(scan)
        memory = peak.end() - before
        rows = []
        for _ in range(ROUNDS):
            plain = napari.Viewer()
            alone = bare(plain, scan)
            plain.close()
            viewer = napari.Viewer()
            rows.append((alone, *opened(viewer, scan)))
            viewer.close()
        median = np.median(rows, axis=0)
        result: dict[str, Any] = {
            "scan": f"{SIDE}^3 float32, {scan_mib:.0f} MiB",
            "napari_array_s": round(float(median[0]), 3),
            "drawn_s": round(float(median[1]), 3),
            "drawn_over_napari": round(float(median[1] / median[0]), 2),
            "agents_walk_s": round(float(median[2]), 3),
            "search_done_s": round(float(median[3]), 3),
            "peak_memory_over_scan": round(1 + memory / scan_mib, 2),
            "targets": {"agents_walk_s": TARGET_S, "peak_memory_over_scan": TARGET_MEMORY},
        }
    shown_rows = [(key, value) for key, value in result.items() if isinstance(value, float)]
    print_table(["figure", "value"], [list(row) for row in shown_rows])
    if arguments.save:
        save(RESULTS / "napari_open.json", result, {CLAIM: measured})


if __name__ == "__main__":
    main()
