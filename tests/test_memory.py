"""What fits in memory, and that every command knows when something did not."""

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from medrl import MedrlError, read
from medrl.cli import explain, unexpected
from medrl.data.loading import load_samples
from medrl.engines.messages import reason
from medrl.memory import DOES_NOT_FIT, available_memory, ran_out_of_memory
from medrl.volume.resample import resample_isotropic
from medrl.volume.validation import check_volume


def pytorch_error() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


def wrapped() -> RuntimeError:
    """As MONAI wraps what a transform raises."""
    error = RuntimeError("applying transform")
    error.__cause__ = pytorch_error()
    return error


ERRORS = (
    pytorch_error,
    wrapped,
    MemoryError,
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    lambda: RuntimeError("CUDA error: out of memory"),
    lambda: OSError(12, "Cannot allocate memory"),
)


@pytest.mark.parametrize("make", ERRORS)
def test_a_lack_of_memory_is_known_everywhere(make) -> None:
    error = make()
    assert ran_out_of_memory(error)
    for say in (reason, explain, unexpected):
        assert say(error) == DOES_NOT_FIT

    def load(sample: Path) -> None:
        raise error

    with pytest.raises(MedrlError, match=r"^scan\.nii: does not fit in memory"):
        load_samples([Path("scan.nii")], load, files=lambda sample: [sample])


def test_other_errors_are_none_of_memory() -> None:
    for error in (RuntimeError("odd"), OSError(13, "Permission denied"), KeyError("memory")):
        assert not ran_out_of_memory(error)


def test_reading_that_runs_out_of_memory_names_the_file(tmp_path: Path, monkeypatch) -> None:
    nib.save(nib.Nifti1Image(np.arange(60.0).reshape(3, 4, 5), np.eye(4)), tmp_path / "a.nii")

    def fail(*_: object, **__: object) -> None:
        raise pytorch_error()

    monkeypatch.setattr("medrl.volume._nifti.fill", fail)
    with pytest.raises(MedrlError, match=r"a\.nii: does not fit in memory"):
        read(tmp_path / "a.nii")


def test_the_limit_of_a_process_counts() -> None:
    script = (
        "import resource; from medrl.memory import available_memory\n"
        "free = available_memory()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "print(free, available_memory())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    free, limited = map(int, done.stdout.split())
    assert 0 < limited < 2**30
    assert limited < free < 2**60


@pytest.mark.parametrize(
    ("version", "names"), [(1, "limit_in_bytes usage_in_bytes"), (2, "max current")]
)
def test_the_limit_of_a_container_counts(tmp_path: Path, version: int, names: str) -> None:
    from medrl.memory import _of_cgroup

    limit, used = (tmp_path / f"memory.{name}" for name in names.split())
    limit.write_text("4000000000\n")
    used.write_text("3000000000\n")
    (tmp_path / "memory.stat").write_text("cache 7\ninactive_file 500000000\nactive_file 1\n")
    assert list(_of_cgroup(tmp_path)) == [1_500_000_000]
    limit.write_text("max\n")
    assert list(_of_cgroup(tmp_path)) == []


def scan_of(size: float) -> MetaTensor:
    affine = torch.diag(torch.tensor([size, size, size, 1.0], dtype=torch.float64))
    return MetaTensor(torch.rand(1, 98, 116, 94), affine=affine)


def test_voxels_that_are_too_large_do_not_take_all_memory(monkeypatch) -> None:
    says = "spans 1940 x 2300 x 1860 mm.*not fit in memory.*wrong voxel size"
    monkeypatch.setattr("medrl.volume.resample.available_memory", lambda: 2**34)
    with pytest.raises(MedrlError, match=says):
        resample_isotropic(scan_of(20), spacing=2.0)
    assert resample_isotropic(scan_of(2.4), spacing=2.0).shape == (1, 117, 139, 112)
    monkeypatch.setattr("medrl.volume.resample.available_memory", lambda: 2**60)
    with pytest.raises(MedrlError, match=r"19400 x 23000 x 18600 mm: .* not fit in memory"):
        resample_isotropic(scan_of(200), spacing=2.0)
    with pytest.raises(MedrlError, match="19400 x 23000 x 18600 mm; its header"):
        resample_isotropic(scan_of(200), spacing=50.0)


@pytest.mark.parametrize(("size", "says"), [(0.02, "1.96 x 2.32 x 1.88"), (0.002, "0.196 x 0.232")])
def test_voxels_that_are_too_small(size: float, says: str) -> None:
    with pytest.raises(MedrlError, match=f"spans only {says}.*wrong voxel size"):
        check_volume(scan_of(size))


def test_a_scan_that_is_longer_than_a_body_is_told(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).random((20, 23, 19), dtype=np.float32)
    for size, told in ((10, False), (100, True)):
        nib.save(nib.Nifti1Image(voxels, np.diag([size, size, size, 1.0])), tmp_path / "a.nii")
        if told:
            with pytest.warns(UserWarning, match="spans 2000 x 2300 x 1900 mm, more than a body"):
                read(tmp_path / "a.nii")
        else:
            assert read(tmp_path / "a.nii").meta["remarks"] == ()


def test_a_header_that_declares_more_than_memory_holds(tmp_path: Path, monkeypatch) -> None:
    nib.save(nib.Nifti1Image(np.zeros((40, 50, 60), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    monkeypatch.setattr("medrl.volume._checks.available_memory", lambda: 40 * 50 * 60)
    with pytest.raises(MedrlError, match="40 x 50 x 60 voxels, more than fits in memory"):
        read(tmp_path / "a.nii.gz")


def test_memory_is_known_here() -> None:
    assert 2**20 < available_memory() < 2**50
