"""What every test shares: the folder of real scans, and a network that is closed."""

import os

# Two test processes on small machines: one thread each, set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import SimpleITK as sitk

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real scans: MEDRL_DATA, or shared/data next to the checkout."""
    root = Path(os.environ.get("MEDRL_DATA") or "../shared/data")
    root = root if root.is_absolute() else REPOSITORY / root
    if not root.is_dir():
        pytest.skip(f"no folder of real scans at {root}: set MEDRL_DATA")
    return root


@pytest.fixture
def screen(request: pytest.FixtureRequest) -> Iterator[None]:
    """A screen, real or virtual, from which napari's windows are gone in the end."""
    napari = pytest.importorskip("napari")
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        pytest.skip("no screen, real or virtual: install xvfb")  # Qt would end the interpreter
    request.getfixturevalue("qapp")
    yield
    napari.Viewer.close_all()


def _is_local(address: Any) -> bool:
    """Tell whether a socket address stays on this machine."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    try:
        if host in {"", "localhost"} or ipaddress.ip_address(host).is_loopback:
            return True
    except ValueError:
        return False
    return host in {one.address for ones in psutil.net_if_addrs().values() for one in ones}


@pytest.fixture(autouse=True)
def closed_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections that leave this machine, so that no test leans on the network."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if not _is_local(address):
            raise OSError(f"the tests do not use the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def with_two_forms() -> Callable[[Path], Path]:
    """Gives a NIfTI file a qform that lies elsewhere than its sform; ITK then takes the qform."""

    def change(path: Path) -> Path:
        image = nib.load(path)
        image = nib.Nifti1Image(np.array(image.dataobj), image.affine, image.header)
        turned = np.eye(4)
        turned[:3] = [[0.8, -0.6, 0, 30], [0.6, 0.8, 0, -20], [0, 0, 1, 10]]
        image.set_sform(image.affine, code=2)
        image.set_qform(turned @ image.affine, code=1)
        nib.save(image, path)
        return path

    return change


@pytest.fixture
def lies_on() -> Callable[[Path, Path], None]:
    """Checks that a result lies on its scan, for nibabel and for ITK."""

    def check(result: Path, scan: Path) -> None:
        np.testing.assert_allclose(nib.load(result).affine, nib.load(scan).affine, atol=1e-4)
        mine, theirs = sitk.ReadImage(str(result)), sitk.ReadImage(str(scan))
        for ask in ("GetOrigin", "GetSpacing", "GetDirection"):
            np.testing.assert_allclose(getattr(mine, ask)(), getattr(theirs, ask)(), atol=1e-4)
        assert not np.allclose(
            np.array(mine.GetOrigin()) * (-1, -1, 1), nib.load(scan).affine[:3, 3]
        )

    return check
