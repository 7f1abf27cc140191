"""A CUDA device next to the CPU: the parts that have code of their own there, then whole answers.

Parts: cropping against MONAI's SpatialCrop, grid_sample and a plain copy on the same device; the
random walker; the similarity of windows. Answers: one head T1 MRI through each public predictor on
both devices, how far the answers are apart and how long they took; then copies of it, several
together. Every call is timed to the end of the device's work, the first calls are left out, and
ratios are of medians. The CPU has as many threads as torch takes by itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from evaluation.results import RESULTS, print_table, save
from monai.data.meta_tensor import MetaTensor
from monai.transforms import SpatialCrop
from scipy.spatial.transform import Rotation
from torch.nn import functional as F

import medrl
from medrl.cli.demo import write_template
from medrl.errors import MedrlError
from medrl.registration.similarity import similarity
from medrl.roi import crop
from medrl.volume.pyramid import Pyramid
from medrl.walker.edges import FEATURE_FLOOR, intensity_edges
from medrl.walker.segmenter import RandomWalker

EXTENT = 160
WINDOWS = ((64, 25), (1024, 25), (64, 45))
#: How many copies of the head are searched, and how many of them together.
COPIES, TOGETHER = 16, (1, 4, 16)
SEEDS = 30
#: Inside the left hippocampus of the MNI152 template, RAS mm.
CLICK = "fg:-25.5,-21,-14"


def seconds(call: Callable[[], object], *, repeats: int = 10, warm: int = 2) -> float:
    """Median wall seconds of a call, to the end of what the device has to do for it."""
    times = []
    for number in range(warm + repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        if number >= warm:
            times.append(time.perf_counter() - start)
    return float(np.median(times))


def cropping(count: int, size: int) -> dict[str, Any]:
    """Windows per second on the device; all contenders fetch the same ones."""
    rng = np.random.default_rng(size)
    scan = torch.from_numpy(rng.random((1, EXTENT, EXTENT, EXTENT), dtype=np.float32))
    places = rng.integers(size // 2, EXTENT - size // 2, (count, 3))
    there, centers = scan.cuda(), torch.from_numpy(places).cuda()
    pyramid = Pyramid((there,), (1.0,), (np.eye(4),))
    rotations = torch.from_numpy(Rotation.random(count, random_state=0).as_matrix()).cuda()
    image = MetaTensor(there)
    steps = torch.arange(size, device="cuda") - size // 2
    offsets = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)
    source = torch.rand(count, 1, size, size, size, device="cuda")
    out = torch.empty_like(source)

    def by_monai() -> torch.Tensor:
        roi = (size, size, size)
        crops = (SpatialCrop(roi_center=center, roi_size=roi)(image) for center in places)
        return torch.stack([window.as_tensor() for window in crops])

    def by_grid_sample() -> torch.Tensor:
        grid = (centers.view(-1, 1, 1, 1, 3) + offsets).flip(-1) * (2 / (EXTENT - 1)) - 1
        batch = there.expand(count, -1, -1, -1, -1)
        return F.grid_sample(batch, grid.float(), align_corners=True)

    calls: dict[str, Callable[[], object]] = {
        "medrl": lambda: crop(pyramid, centers, size),
        "medrl rotated": lambda: crop(pyramid, centers, size, rotation=rotations),
        "MONAI SpatialCrop": by_monai,
        "grid_sample": by_grid_sample,
        "copy_": lambda: out.copy_(source),
    }
    expected = crop(Pyramid((scan,), (1.0,), (np.eye(4),)), places, size)
    for found in (crop(pyramid, centers, size), by_monai()):
        if not torch.equal(found.cpu(), expected):
            raise SystemExit("the windows on the device are not those of the CPU")
    torch.testing.assert_close(by_grid_sample().cpu(), expected, rtol=0, atol=1e-3)
    rates = {name: count / seconds(call) for name, call in calls.items()}
    rates["medrl, CPU"] = count / seconds(
        lambda: crop(Pyramid((scan,), (1.0,), (np.eye(4),)), places, size)
    )
    over = {name: rates["medrl"] / rate for name, rate in rates.items() if name != "medrl"}
    return {"windows": count, "size": size, "per_second": rates, "medrl_over": over}


def walking(count: int, side: int) -> dict[str, Any]:
    """The random walker on noisy balls, 30 seeds in each: prepare and solve."""
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, side)
    i, j, k = np.meshgrid(axis, axis, axis, indexing="ij")
    truth = i**2 + j**2 + k**2 < 0.4
    images = truth + 0.1 * rng.standard_normal((count, 1, *truth.shape))
    seeds = torch.full((count, *truth.shape), -1, dtype=torch.int8)
    for row in range(count):
        places = tuple(rng.integers(0, side, SEEDS) for _ in range(3))
        seeds[(row, *places)] = torch.from_numpy(truth[places]).to(torch.int8)
    walker = RandomWalker()

    def solve(device: str) -> torch.Tensor:
        weights = intensity_edges(torch.from_numpy(images).float().to(device))
        # No weaker than the edges that networks give: see the solver for the GPU.
        weights = torch.where(weights > 0, weights.clamp(min=FEATURE_FLOOR), weights)
        return walker.solve(walker.prepare(weights), seeds.to(device))

    return compare(solve) | {"windows": count, "side": side}


def likeness(count: int, size: int) -> dict[str, Any]:
    """Similarity of windows, as the registration's search asks for it at every step."""
    draw = torch.Generator().manual_seed(0)
    fixed, moving = (torch.rand(count, 1, size, size, size, generator=draw) for _ in range(2))
    on = {device: (fixed.to(device), moving.to(device)) for device in ("cpu", "cuda")}
    return compare(lambda device: similarity(*on[device])) | {"windows": count, "size": size}


def compare(call: Callable[[str], torch.Tensor]) -> dict[str, Any]:
    """Seconds on both devices, and the largest difference."""
    apart = float((call("cpu") - call("cuda").cpu()).abs().max())
    cpu, cuda = (seconds(lambda d=device: call(d), repeats=5) for device in ("cpu", "cuda"))
    return {"cpu_s": cpu, "cuda_s": cuda, "times_faster": cpu / cuda, "largest_difference": apart}


def answers(path: Path) -> dict[str, Any]:
    """One scan through each predictor on both devices."""
    head = medrl.read(path)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("xyz", (20, -15, 25), degrees=True).as_matrix()
    pose[:3, 3] = 8, -12, 5
    turned = MetaTensor(head.as_tensor(), affine=torch.from_numpy(pose) @ head.affine)
    runs: dict[str, tuple[str, Callable[[Any], Any], Callable[[Any], np.ndarray], str]] = {
        "landmarks, 25": (
            "brain-t1",
            lambda predictor: predictor.detect(head),
            lambda found: np.stack([one.position_world for one in found.landmarks]),
            "mm",
        ),
        "hippocampus, one click": (
            "hippocampus-t1",
            lambda predictor: predictor.segment(head, [CLICK]),
            lambda found: found.mask.numpy().astype(float),
            "voxels",
        ),
        "registration, any pose": (
            "rigid-head",
            lambda predictor: predictor.register(head, turned),
            lambda found: found.transform_world,
            "of the matrix",
        ),
    }
    out = {}
    for name, (model, run, values, unit) in runs.items():
        found, times = {}, {}
        for device in ("cpu", "cuda"):
            predictor = medrl.load(model, device=device)
            found[device] = values(run(predictor))
            times[device] = seconds(lambda p=predictor, r=run: r(p), repeats=2, warm=0)
        apart = np.abs(found["cpu"] - found["cuda"])
        out[name] = {
            "cpu_s": times["cpu"],
            "cuda_s": times["cuda"],
            "times_faster": times["cpu"] / times["cuda"],
            "apart": float(apart.sum() if unit == "voxels" else apart.max()),
            "apart_unit": unit,
        }
    return out


def together(path: Path) -> dict[str, Any]:
    """Heads a second by the number that are searched together."""
    head = medrl.read(path)
    rng = np.random.default_rng(0)
    copies = []
    for _ in range(COPIES):
        noise = rng.normal(0, 0.02 * float(head.max()), tuple(head.shape)).astype(np.float32)
        copies.append(MetaTensor(head.as_tensor() + torch.from_numpy(noise), affine=head.affine))
    detector = medrl.load("brain-t1", device="cuda")

    def positions(size: int) -> np.ndarray:
        several = detector.detect_many(copies, batch_size=size)
        failed = [str(one) for one in several if isinstance(one, MedrlError)]
        if failed:
            raise SystemExit(failed[0])
        return np.array([[lm.position_world for lm in one.landmarks] for one in several])

    alone = positions(1)
    rates = {}
    for size in TOGETHER:
        apart = float(np.abs(positions(size) - alone).max())
        spent = seconds(lambda n=size: positions(n), repeats=2, warm=0)
        rates[str(size)] = {"per_second": COPIES / spent, "apart_mm": apart}
    return rates


def parts_in_words(result: dict[str, Any]) -> str:
    """Times faster than what it is compared with."""
    lines = []
    for case in result["cropping"]:
        over = case["medrl_over"]
        names = ("MONAI SpatialCrop", "grid_sample", "copy_", "medrl, CPU")
        ratios = ", ".join(
            f"{over[name]:.{0 if over[name] > 10 else 2}f}x {name}" for name in names
        )
        lines.append(f"{case['windows']} windows of {case['size']}^3: {ratios}")
    for name in ("walker", "similarity"):
        ratios = ", ".join(
            f"{one['times_faster']:.1f}x ({one['windows']} windows)" for one in result[name]
        )
        lines.append(f"{name} against the CPU: {ratios}")
    return "; ".join(lines)


def answers_in_words(result: dict[str, Any]) -> str:
    """Seconds on both devices, and how far apart."""
    lines = [
        f"{name} {one['cpu_s']:.2f} s, {one['cuda_s']:.2f} s, apart {one['apart']:.2g} "
        f"{one['apart_unit']}"
        for name, one in result["answers"].items()
    ]
    rates = ", ".join(f"{one['per_second']:.1f} ({n})" for n, one in result["together"].items())
    return "; ".join([*lines, f"heads a second by the number together: {rates}"])


CLAIMS = {
    "On a GPU the parts are faster": parts_in_words,
    "A GPU gives the CPU's answers, sooner": answers_in_words,
}


def main() -> None:
    """Measure, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scan", type=Path, help="the MNI152 T1 template; by default nilearn's")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("not measured: there is no CUDA device")
        return
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "cpu_threads": torch.get_num_threads(),
        "cropping": [cropping(count, size) for count, size in WINDOWS],
        "walker": [walking(1, 48), walking(16, 48)],
        "similarity": [likeness(24, 24), likeness(256, 32)],
    }
    print(parts_in_words(result), flush=True)
    with TemporaryDirectory() as folder:
        scan = options.scan or Path(folder, "mni152_t1.nii.gz")
        if options.scan is None:
            write_template(scan)
        result["answers"] = answers(scan)
        result["together"] = together(scan)
    print(answers_in_words(result), flush=True)
    save(options.out, result, CLAIMS)
    rows = [
        [name, one["cpu_s"], one["cuda_s"], one["times_faster"], one["apart"]]
        for name, one in result["answers"].items()
    ]
    print_table(["answer", "CPU s", "CUDA s", "ratio", "apart"], rows)


if __name__ == "__main__":
    main()
