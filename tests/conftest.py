"""What every test shares: the folder of real scans, and a network that is closed."""

import os

# Two test processes on small machines: one thread each, set before PyTorch and Numba load.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import ipaddress
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

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
