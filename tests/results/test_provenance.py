"""What a result says of its making."""

import torch
from monai.data.meta_tensor import MetaTensor

import medrl
from medrl.results.provenance import provenance
from medrl.trajectory import Trajectory


def scan(name: str | None = None) -> MetaTensor:
    meta = {} if name is None else {"filename_or_obj": name}
    return MetaTensor(torch.zeros(1, 2, 2, 2), meta=meta)


def test_what_is_known_is_said() -> None:
    said = provenance({"name": "brain-t1"}, scan("a.nii"), scan(), scan("b.nii"), seed=3, windows=9)
    assert said == {
        "scan": "a.nii, b.nii",
        "model": "brain-t1",
        "version": medrl.__version__,
        "seed": 3,
        "windows": 9,
    }
    assert Trajectory("toy", (), said).provenance == said


def test_what_is_unknown_is_empty() -> None:
    unknown = {"scan": "", "model": "", "version": medrl.__version__, "seed": 0}
    assert provenance({}, scan()) == unknown
