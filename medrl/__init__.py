"""Agents that look at a 3D scan through a moving window and decide where to go next.

The names below are loaded on first use, so that `import medrl` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medrl._monai import load_by_parts

if TYPE_CHECKING:
    from medrl.errors import MedrlError as MedrlError
    from medrl.landmark.detect import Detection as Detection
    from medrl.landmark.detect import Landmark as Landmark
    from medrl.landmark.detect import LandmarkDetector as LandmarkDetector
    from medrl.registration.register import Registrar as Registrar
    from medrl.registration.register import Registration as Registration
    from medrl.seednet.seeds import Seed as Seed
    from medrl.seednet.session import SeedSession as SeedSession
    from medrl.trajectory import Trajectory as Trajectory
    from medrl.trajectory import read_trajectory as read_trajectory
    from medrl.trajectory import write_trajectory as write_trajectory
    from medrl.volume.read import read as read

__version__ = "0.1.0"

load_by_parts()

_HOME = {
    "Detection": "medrl.landmark.detect",
    "Landmark": "medrl.landmark.detect",
    "LandmarkDetector": "medrl.landmark.detect",
    "MedrlError": "medrl.errors",
    "Registrar": "medrl.registration.register",
    "Registration": "medrl.registration.register",
    "Seed": "medrl.seednet.seeds",
    "SeedSession": "medrl.seednet.session",
    "Trajectory": "medrl.trajectory",
    "read": "medrl.volume.read",
    "read_trajectory": "medrl.trajectory",
    "write_trajectory": "medrl.trajectory",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module 'medrl' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """Name what can be imported from here, loaded or not."""
    return sorted({*globals(), *_HOME})
