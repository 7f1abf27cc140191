"""`medrl view`: look at a scan and what belongs to it in napari."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import tyro

from medrl.cli.output import say
from medrl.cli.terminal import parse
from medrl.errors import MedrlError

_INSTALL = "pip install 'medrl[napari]'"
_QT = ("PySide6", "PyQt6", "PyQt5")
#: Qt's platforms without OpenGL, in which napari crashes.
_BLIND = ("offscreen", "minimal")
_X11_SOCKETS = Path("/tmp/.X11-unix")
_X11_PORT = 6000
_PATIENCE_S = 2.0


@dataclass(frozen=True, kw_only=True)
class View:
    """Look at a scan in napari, with agents' paths, points and masks on top.

    Opens three linked views beside napari's own; needs the extra `napari` and a display.
    """

    files: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SCAN [FILE...]")
    ]
    """The scan, then trajectories (.trajectory.json), points (.mrk.json, .fcsv) and masks."""

    screenshot: Annotated[Path | None, tyro.conf.arg(metavar="PNG")] = None
    """Write a picture of the window to this file, and leave."""


def main(argv: Sequence[str]) -> int:
    """Run `medrl view`.

    Args:
        argv: What follows `medrl view` on the command line.

    Returns:
        Exit code 0.

    Raises:
        MedrlError: If there is no napari or no display, or a file cannot be read or written.
    """
    command: View = parse(View, argv, prog="medrl view")
    if not command.files:
        raise MedrlError("name a scan")
    for path in command.files:
        if not path.exists():
            raise MedrlError(f"{path}: no such file")
    if command.screenshot is not None:
        if command.screenshot.suffix.lower() != ".png":
            raise MedrlError(f"{command.screenshot}: a screenshot is a .png file")
        if not command.screenshot.parent.is_dir():
            raise MedrlError(
                f"{command.screenshot}: there is no folder {command.screenshot.parent}"
            )
    if reason := hindrance():
        raise MedrlError(reason)

    from medrl_napari import launch

    viewer, views = launch.open_viewer(command.files)
    if command.screenshot is None:
        launch.run()
        return 0
    try:
        launch.save_screenshot(command.screenshot, viewer, views)
    finally:
        viewer.close()
    say(f"wrote {command.screenshot}")
    return 0


def hindrance() -> str:
    """Why no window can be opened here; empty if one can.

    Qt ends the whole interpreter where it finds no display, so this is found out without it.
    """
    if find_spec("napari") is None:
        return f"napari is not installed: {_INSTALL}"
    if not any(find_spec(name) for name in _QT):
        return f"napari has no window toolkit (PySide6 or PyQt6): {_INSTALL}"
    if not sys.platform.startswith("linux"):
        return ""
    platform = os.environ.get("QT_QPA_PLATFORM", "").split(":")[0]
    display, wayland = os.environ.get("DISPLAY", ""), os.environ.get("WAYLAND_DISPLAY", "")
    if platform in _BLIND:
        return f"QT_QPA_PLATFORM={platform} cannot show a scan: unset it, or use xvfb-run"
    if platform and not (display or wayland):
        # Someone knows of a platform that needs neither, such as eglfs.
        return ""
    if not (display or wayland):
        return "there is no display: run it on a desktop, with ssh -X, or with xvfb-run -a"
    if wayland and _wayland_answers(wayland):
        return ""
    if display and _x11_answers(display):
        return ""
    return f"the display {display or wayland} does not answer: is it still there?"


def _wayland_answers(name: str) -> bool:
    folder = Path(os.environ.get("XDG_RUNTIME_DIR", "/run/user"))
    return _connects(socket.AF_UNIX, str(folder / name))


def _x11_answers(display: str) -> bool:
    host, _, rest = display.rpartition(":")
    number = rest.split(".")[0]
    if not number.isdigit():
        return False
    if host in ("", "unix"):
        path = f"{_X11_SOCKETS}/X{number}"
        return _connects(socket.AF_UNIX, path) or _connects(socket.AF_UNIX, f"\0{path}")
    return _connects(socket.AF_INET, (host, _X11_PORT + int(number)))


def _connects(family: socket.AddressFamily, address: str | tuple[str, int]) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(address)
    except (OSError, ValueError):
        return False
    return True
