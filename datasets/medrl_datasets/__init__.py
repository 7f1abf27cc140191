"""The public data sets that medrl is trained and tested on: cards, splits and datalists.

Nothing is downloaded. A card says how to get a set; `verify` says whether a local copy is the one
that medrl's figures were measured on.
"""

from importlib import import_module
from typing import cast

from medrl.errors import MedrlError
from medrl_datasets.card import Card
from medrl_datasets.local import DataSet, root_of

__all__ = ["Card", "DataSet", "get", "names", "root_of"]

_NAMES = (
    "afids_templates",
    "body_ct_mr",
    "cranium_ct",
    "ct_lung_pair",
    "davis2016_small",
    "fetal_atlas_t2",
    "ixi_brain_t1",
    "mni152",
    "mouse_skull_ct",
    "ms_multimodal",
    "msd_hippocampus",
    "spine_mr_lumbar",
    "sts_ct_pet",
    "sunnybrook_lv",
    "tracking_video",
    "vertebra_ct_mr",
)


def names() -> tuple[str, ...]:
    """Return the names of all data sets."""
    return _NAMES


def get(name: str) -> DataSet:
    """Return a data set by name.

    Raises:
        MedrlError: If there is none of that name.
    """
    if name not in _NAMES:
        raise MedrlError(f"there is no data set {name!r}; there are: {', '.join(_NAMES)}")
    return cast(DataSet, import_module(f"medrl_datasets.{name}").DATASET)
