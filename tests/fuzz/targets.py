"""What is asked to read the inputs, and what must hold of what it makes of them."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np

from medrl.errors import MedrlError
from medrl.systems import by_verb


class Finding(Exception):  # noqa: N818 - what a fuzzer finds
    """Something that must not be."""


def run(kind: str, path: Path, out: Path, command_line: bool, model: Path) -> str:
    """Read an input by every function that reads its kind, or by the command line.

    Args:
        kind: Of the input.
        path: What to read.
        out: An empty folder.
        command_line: Go through `medrl.cli.main` where there is a cheap command for the kind.
        model: A small model for `medrl detect`.

    Returns:
        ``read`` if the first of the kind's functions took it, else ``refused``.

    Raises:
        Finding: If what was read breaks its contract.
        Exception: Whatever is no MedrlError.
    """
    if command_line and kind in _COMMANDS:
        return _command([str(word) for word in _COMMANDS[kind](path, out, model)])
    taken = False
    for reader in TARGETS[kind]:
        try:
            reader(path, out)
            taken = taken or reader is TARGETS[kind][0]
        except MedrlError as error:
            text = str(error)
            if not text.strip():
                raise Finding("an error without words") from error
    return "read" if taken else "refused"


def _command(arguments: list[str]) -> str:
    from medrl.cli import main

    streams = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        code = main(arguments)
    said = streams[0].getvalue() + streams[1].getvalue()
    if code not in (0, 1, 2):
        raise Finding(f"exit code {code}: {said[-300:]}")
    if "Traceback" in said or "unexpected" in said:
        raise Finding(f"said: {said[-400:]}")
    if code and "error" not in streams[1].getvalue():
        raise Finding(f"exit code {code} without a word")
    return "refused" if code else "read"


_COMMANDS: dict[str, Callable[[Path, Path, Path], list[object]]] = {
    "scan": lambda path, out, model: ["detect", path, "-o", out, "--model", model, "--no-picture"],
    "dicom": lambda path, out, model: ["detect", path, "-o", out, "--model", model, "--no-picture"],
    "bundle": lambda path, out, model: ["info", path],
    "manifest": lambda path, out, model: ["batch", "detect", path, out, "--dry-run"],
}


def _scan(path: Path, out: Path) -> None:
    from medrl import read

    scan = read(path)
    if scan.ndim != 4 or not bool(np.isfinite(scan.numpy()).all()):
        raise Finding(f"a scan of shape {tuple(scan.shape)} or with voxels that are not finite")
    affine = np.asarray(scan.affine)
    if affine.shape != (4, 4) or not np.isfinite(np.linalg.inv(affine)).all():
        raise Finding(f"an affine that is none: {affine.tolist()}")
    held = scan.numpy().astype(np.int64, casting="unsafe").ravel()
    if len(held) > 8 and np.isin(held, SECRET_VALUES).mean() > 0.5:
        raise Finding("holds what lies outside of its folder")


def _labels(path: Path, out: Path) -> None:
    """Labels, and what is written of them, lie where the scan does."""
    from medrl.volume.read import read_labels, write_nifti

    labels = read_labels(path)
    write_nifti(out / "again.nii", labels)
    again = read_labels(out / "again.nii")
    size = np.linalg.norm(np.asarray(labels.affine)[:3, :3], axis=0)
    off = np.abs(np.asarray(again.affine) - np.asarray(labels.affine))[:3]
    if not np.array_equal(again.numpy(), labels.numpy()):
        raise Finding("labels change when written")
    if (off[:, :3] > 1e-3 * size.max()).any():
        raise Finding(f"another place when written: {labels.affine.tolist()}")


#: What the file beside the input's folder is full of, as bytes and as little-endian shorts.
SECRET_BYTE = 0xA7
SECRET_VALUES = (SECRET_BYTE, SECRET_BYTE * 257, SECRET_BYTE * 257 - 2**16, SECRET_BYTE - 256)


def _series(path: Path, out: Path) -> None:
    from medrl.volume.series import list_series

    list_series(path)


def _discover(verb: str) -> Callable[[Path, Path], None]:
    def find(path: Path, out: Path) -> None:
        from medrl.batch.discover import discover

        for case in discover(path, by_verb(verb), leave_out=out):
            target = (out / case.name).resolve()
            if not target.is_relative_to(out.resolve()) or target == out.resolve():
                raise Finding(f"a case called {case.name!r}")

    return find


def _points(path: Path, out: Path) -> None:
    from medrl.volume.points import read_points, write_markups

    points = read_points(path)
    if not all(p.shape == (3,) and np.isfinite(p).all() for p in points.values()):
        raise Finding("points that are none")
    write_markups(out / "again.mrk.json", points)
    again = read_points(out / "again.mrk.json")
    if list(again) != list(points):
        raise Finding(f"names change when written: {list(points)} {list(again)}")


def _markups(path: Path, out: Path) -> None:
    from medrl.volume.points import read_markups, write_markup_lists

    if path.name.endswith(".json"):
        write_markup_lists(out / "lists.mrk.json", read_markups(path))


def _seeds(path: Path, out: Path) -> None:
    from medrl.seednet.seeds import read_seeds

    read_seeds(path)


def _trajectory(path: Path, out: Path) -> None:
    from medrl.trajectory import read_trajectory, write_trajectory

    write_trajectory(out / "again.json", read_trajectory(path))
    read_trajectory(out / "again.json")


def _transform(path: Path, out: Path) -> None:
    from inputs import grid_scan

    from medrl.volume.transform_files import read_transform

    scan = grid_scan()
    matrix = read_transform(path, fixed=scan, moving=scan)
    if not np.isfinite(np.linalg.inv(matrix)).all():
        raise Finding(f"a transform that is none: {matrix.tolist()}")


def _manifest(path: Path, out: Path) -> None:
    from medrl.bundles import read_manifest

    read_manifest(path)


def _weights(path: Path, out: Path) -> None:
    from medrl.bundles import load_weights

    load_weights(path)


def _landmark(path: Path, out: Path) -> None:
    from medrl.landmark.detect import LandmarkDetector

    LandmarkDetector.load(str(path))


def _seednet(path: Path, out: Path) -> None:
    from medrl.seednet.model import SeedModel

    SeedModel.load(path)


def _registration(path: Path, out: Path) -> None:
    from medrl.registration.register import Registrar

    Registrar.load(path)


def _datalist(path: Path, out: Path) -> None:
    from medrl.data.datalist import read_samples

    if path.name.endswith(".json"):
        read_samples(path, keys=("image",), sample=lambda entry: entry.file("image"))


def _store(path: Path, out: Path) -> None:
    from medrl.batch.cases import Case, Source
    from medrl.batch.store import Store

    store = Store(path)
    case = Case("one", {"scan": Source(Path("a.nii"))})
    for ask in (
        store.records,
        store.failures,
        lambda: store.record(case),
        lambda: store.failure(case),
        lambda: store.agree({"verb": "detect", "model": "x"}),
    ):
        with contextlib.suppress(MedrlError):
            ask()


TARGETS: dict[str, tuple[Callable[[Path, Path], None], ...]] = {
    "scan": (_scan, _labels),
    "dicom": (_scan, _series, _discover("detect")),
    "points": (_points, _markups, _seeds),
    "trajectory": (_trajectory,),
    "transform": (_transform,),
    "bundle": (_manifest, _weights, _landmark, _seednet, _registration),
    "manifest": (*(_discover(verb) for verb in ("detect", "segment", "register")), _datalist),
    "store": (_store,),
}


def through_command_line(kind: str, rng: random.Random) -> bool:
    """Whether an input goes through the command line: it is slower."""
    return kind in _COMMANDS and rng.random() < (0.5 if kind in ("bundle", "manifest") else 0.1)
