"""Trained models: a folder of safetensors and JSON, checked when it is read. No pickle, ever."""

from medrl.bundles.build import assemble, damaged, network_tensors, settings_from
from medrl.bundles.folder import (
    Bundle,
    available,
    find,
    load_weights,
    read_manifest,
    read_model,
    save,
    save_guard,
)
from medrl.bundles.guard import Guard, Training, doubted, guard_of, not_made_for
from medrl.bundles.manifest import (
    FORMAT,
    VERSION,
    Manifest,
    check_manifest,
    check_names,
    named,
    new_manifest,
)

__all__ = [
    "FORMAT",
    "VERSION",
    "Bundle",
    "Guard",
    "Manifest",
    "Training",
    "assemble",
    "available",
    "check_manifest",
    "check_names",
    "damaged",
    "doubted",
    "find",
    "guard_of",
    "load_weights",
    "named",
    "network_tensors",
    "new_manifest",
    "not_made_for",
    "read_manifest",
    "read_model",
    "save",
    "save_guard",
    "settings_from",
]
