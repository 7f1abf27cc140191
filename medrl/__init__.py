"""Agents that look at a 3D scan through a moving window and decide where to go next.

The names below are loaded on first use, so that `import medrl` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from medrl._monai import load_by_parts

if TYPE_CHECKING:
    from medrl.alignment.align import Aligner as Aligner
    from medrl.alignment.align import Alignment as Alignment
    from medrl.alignment.align import align as align
    from medrl.cutting.answer import Carried as Carried
    from medrl.cutting.carry import Carrier as Carrier
    from medrl.errors import MedrlError as MedrlError
    from medrl.landmark.detect import LandmarkDetector as LandmarkDetector
    from medrl.landmark.detection import Detection as Detection
    from medrl.landmark.detection import Landmark as Landmark
    from medrl.localization.answer import Box as Box
    from medrl.localization.answer import Localization as Localization
    from medrl.localization.localize import Localizer as Localizer
    from medrl.registration.register import Registrar as Registrar
    from medrl.registration.register import Registration as Registration
    from medrl.seednet.seeds import Seed as Seed
    from medrl.seednet.segment import SeedSegmenter as SeedSegmenter
    from medrl.seednet.segment import Segmentation as Segmentation
    from medrl.seednet.session import SeedSession as SeedSession
    from medrl.systems import load as load
    from medrl.trajectory import Trajectory as Trajectory
    from medrl.trajectory import read_trajectory as read_trajectory
    from medrl.trajectory import write_trajectory as write_trajectory
    from medrl.volume.read import read as read

__version__ = "0.1.0"

load_by_parts()

#: Where each public name is.
_HOME = {
    "medrl.alignment.align": ("Aligner", "Alignment", "align"),
    "medrl.cutting.answer": ("Carried",),
    "medrl.cutting.carry": ("Carrier",),
    "medrl.errors": ("MedrlError",),
    "medrl.landmark.detect": ("Detection", "Landmark", "LandmarkDetector"),
    "medrl.localization.answer": ("Box", "Localization"),
    "medrl.localization.localize": ("Localizer",),
    "medrl.registration.register": ("Registrar", "Registration"),
    "medrl.seednet.seeds": ("Seed",),
    "medrl.seednet.segment": ("SeedSegmenter", "Segmentation"),
    "medrl.seednet.session": ("SeedSession",),
    "medrl.systems": ("load",),
    "medrl.trajectory": ("Trajectory", "read_trajectory", "write_trajectory"),
    "medrl.volume.read": ("read",),
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'medrl' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Name what can be imported from here, loaded or not."""
    return sorted({*globals(), *_MODULES})
