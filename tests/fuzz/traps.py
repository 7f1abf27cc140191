"""Readers that do what must not be done: what the fuzzer says of them, as JSON."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import child
import numpy as np
import SimpleITK as sitk
import targets
from child import Workplace

from medrl.errors import MedrlError


def error(path: Path, out: Path) -> None:
    raise IndexError("beyond the end")


def crash(path: Path, out: Path) -> None:
    os.abort()


def leave(path: Path, out: Path) -> None:
    os._exit(0)


def hang(path: Path, out: Path) -> None:
    time.sleep(1000)


def memory(path: Path, out: Path) -> None:
    np.ones(2**24)


def read_outside(path: Path, out: Path) -> None:
    Path("/etc/passwd").read_bytes()


def native_read(path: Path, out: Path) -> None:
    header = out / "a.mhd"
    header.write_text(
        "ObjectType = Image\nNDims = 3\nDimSize = 8 8 8\nElementType = MET_UCHAR\n"
        "ElementDataFile = ../outside/secret.raw\n"
    )
    sitk.ReadImage(str(header))


def write_beside(path: Path, out: Path) -> None:
    (path.parent / "new").touch()


def native_write(path: Path, out: Path) -> None:
    sitk.WriteImage(sitk.Image(2, 2, 2, sitk.sitkUInt8), "relative.mha")


def link_out(path: Path, out: Path) -> None:
    (out.parent / "cwd" / "link").symlink_to("/")


def load_pickle(path: Path, out: Path) -> None:
    pickle.loads(pickle.dumps(Path("x")))


def run_program(path: Path, out: Path) -> None:
    subprocess.run(["true"], check=False)


def run_code(path: Path, out: Path) -> None:
    (out / "code.py").write_text("x = 1")
    exec(compile("x = 1", str(out / "code.py"), "exec"))


def nothing_wrong(path: Path, out: Path) -> None:
    (out / "a").write_bytes(path.read_bytes())


def refuse(path: Path, out: Path) -> None:
    raise MedrlError("no")


TRAPS: tuple[Callable[[Path, Path], None], ...] = (
    error, crash, leave, hang, memory, read_outside, native_read, write_beside, native_write,
    link_out, load_pickle, run_program, run_code, nothing_wrong, refuse,
)  # fmt: skip


def main() -> None:
    """Spring every trap."""
    child.PATIENCE = 2.0
    said = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model").mkdir()
        place = Workplace(Path(folder) / "work", Path(folder) / "model")
        for trap in TRAPS:
            targets.TARGETS["points"] = (trap,)
            place.close()
            outcome = place.run("points", {"a.csv": b"x"}, "a.csv", 1)
            said[trap.__name__] = outcome.what if outcome.finding else ""
        place.close()
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
