"""MetaImage headers as they are met: what they say is used, as ITK has it where it does."""

import re
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor

from medrl import MedrlError, read
from medrl.volume.read import read_labels

#: (K, J, I), as a file has them.
VOXELS = np.random.default_rng(0).integers(0, 900, (5, 4, 3)).astype("<i2")
PLACE = ("ElementSpacing = 2 3 4", "Offset = 10 20 30")


def written(path: Path, *fields: str, data: str = "LOCAL", content: bytes | None = None) -> Path:
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        *fields,
        "DimSize = 3 4 5",
        "ElementType = MET_SHORT",
        f"ElementDataFile = {data}",
    ]
    voxels = VOXELS.tobytes() if content is None else content
    path.write_bytes(("\n".join(lines) + "\n").encode() + (voxels if data == "LOCAL" else b""))
    return path


def quietly(path: Path) -> MetaTensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path)


def lies(scan: MetaTensor) -> np.ndarray:
    """Voxel to LPS."""
    return np.diag([-1.0, -1, 1, 1]) @ scan.affine.numpy()


def check_as_itk(path: Path) -> tuple[str, ...]:
    """The scan is what ITK reads; its remarks."""
    scan, image = quietly(path), sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(scan[0].numpy(), values.transpose(2, 1, 0))
    np.testing.assert_array_equal(values, VOXELS)
    want = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    np.testing.assert_allclose(lies(scan)[:3, :3], want, atol=1e-9)
    np.testing.assert_allclose(lies(scan)[:3, 3], image.GetOrigin(), atol=1e-9)
    return scan.meta["remarks"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (PLACE, ""),
        (("ElementSize = 2 3 4", "Position = 1 2 3"), ""),
        (("ElementSpacing = 2 3 4", "ElementSize = 1 1 1"), ""),
        (("ElementSpacing = -2 3 4", "Origin = 1 2 3"), ""),
        (("ElementSpacing : 2 3 4", "CompressedData : False"), ""),
        ((*PLACE, "DistanceUnits = mm"), ""),
        ((*PLACE, "DistanceUnits = ?"), ""),
        ((*PLACE, "AnatomicalOrientation = RAI"), ""),
        ((*PLACE, "AnatomicalOrientation = ???"), ""),
        ((*PLACE, "AnatomicalOrientation = LPS"), "contradicts its TransformMatrix"),
        ((*PLACE, "Orientation = 0 1 0 1 0 0 0 0 1", "AnatomicalOrientation = ARI"), ""),
        ((*PLACE, "Rotation = 0 1 0 1 0 0 0 0 1", "AnatomicalOrientation = RAI"), "contradicts"),
        (("TransformMatrix = 0.8 0.6 0 -0.6 0.8 0 0 0 1", "AnatomicalOrientation = RAI"), ""),
        ((*PLACE, "CenterOfRotation = 0 0 0"), ""),
        ((*PLACE, "CenterOfRotation = 5 5 5"), "its CenterOfRotation was passed over"),
        ((*PLACE, "ElementMin = 0", "ElementMax = 1", "Modality = MET_MOD_CT"), ""),
        ((*PLACE, "HeaderSize = -1"), ""),
    ],
)
def test_a_scan_is_what_itk_reads(tmp_path: Path, fields: tuple[str, ...], told: str) -> None:
    remarks = check_as_itk(written(tmp_path / "a.mha", *fields))
    assert told in " ".join(remarks)
    assert bool(remarks) == bool(told)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 1, 0, 0, 0, 1, 0)])
def test_orientations_that_itk_writes_contradict_nothing(tmp_path: Path, direction: tuple) -> None:
    image = sitk.GetImageFromArray(VOXELS)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    assert b"AnatomicalOrientation" in (tmp_path / "a.mha").read_bytes()
    assert check_as_itk(tmp_path / "a.mha") == ()


@pytest.mark.parametrize(("unit", "mm"), [("cm", 10.0), ("um", 1e-3)])
def test_units_are_brought_to_mm(tmp_path: Path, unit: str, mm: float) -> None:
    scan = quietly(written(tmp_path / "a.mha", *PLACE, f"DistanceUnits = {unit}"))
    want = np.diag([2 * mm, 3 * mm, 4 * mm, 1])
    want[:3, 3] = np.array([10, 20, 30]) * mm
    np.testing.assert_allclose(lies(scan), want)
    assert f"its unit of length is {unit}: brought to mm" in scan.meta["remarks"][0]


def test_values_are_scaled_as_the_header_says(tmp_path: Path) -> None:
    fields = ("ElementToIntensityFunctionSlope = 2", "ElementToIntensityFunctionOffset = -1000")
    path = written(tmp_path / "a.mha", *fields)
    scan = quietly(path)
    np.testing.assert_array_equal(scan[0].numpy(), VOXELS.transpose(2, 1, 0) * 2.0 - 1000)
    assert "2 times what is stored, plus -1000" in scan.meta["remarks"][0]
    with pytest.warns(UserWarning, match="ElementToIntensityFunction"):
        labels = read_labels(path)
    np.testing.assert_array_equal(labels[0].numpy(), VOXELS.transpose(2, 1, 0) * 2 - 1000)


@pytest.mark.parametrize("data", ["LIST", "LIST 2", "LIST 2D", "part%02d.raw 0 4 1"])
@pytest.mark.parametrize("skip", [0, 7, -1])
def test_voxels_in_several_files(tmp_path: Path, data: str, skip: int) -> None:
    names = [f"part{number:02d}.raw" for number in range(5)]
    for name, plane in zip(names, VOXELS, strict=True):
        (tmp_path / name).write_bytes(b"x" * abs(skip) * 7 + plane.tobytes())
    if skip > 0:
        skip *= 7
    path = written(tmp_path / "a.mhd", f"HeaderSize = {skip}", data=data)
    if "LIST" in data:
        path.write_bytes(path.read_bytes() + "\n".join([*names, ""]).encode())
    if skip == 0:
        check_as_itk(path)
    np.testing.assert_array_equal(quietly(path)[0].numpy(), VOXELS.transpose(2, 1, 0))
    (tmp_path / names[2]).write_bytes(b"short")
    with pytest.raises(MedrlError, match=r"a\.mhd: is truncated or has a wrong header"):
        read(path)


def test_a_header_of_some_length_before_the_voxels(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(b"0123456789" + VOXELS.tobytes())
    for skip in (10, -1):
        check_as_itk(written(tmp_path / "a.mhd", f"HeaderSize = {skip}", data="a.raw"))
    # In a file of its own, counted from the beginning.
    length = len(written(tmp_path / "a.mha", "HeaderSize = 100", content=b"").read_bytes()) + 9
    content = b"012345678" + VOXELS.tobytes()
    check_as_itk(written(tmp_path / "a.mha", f"HeaderSize = {length}", content=content))


def test_compressed_voxels_whatever_their_size_is_said_to_be(tmp_path: Path) -> None:
    packed = zlib.compress(VOXELS.tobytes())
    fields = ("CompressedData = True", f"CompressedDataSize = {len(packed)}")
    check_as_itk(written(tmp_path / "a.mha", *fields, content=packed))
    written(tmp_path / "a.mha", *fields[:1], "CompressedDataSize = 9999999", content=packed)
    np.testing.assert_array_equal(quietly(tmp_path / "a.mha")[0].numpy(), VOXELS.transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("fields", "data", "says"),
    [
        (("DistanceUnits = parsec",), "LOCAL", "its unit of length is 'parsec'"),
        (("ElementToIntensityFunctionSlope = 0",), "LOCAL", "ElementToIntensityFunction cannot"),
        (("ElementToIntensityFunctionSlope = nan",), "LOCAL", "ElementToIntensityFunction cannot"),
        (("ElementSpacing = 1 0 1",), "LOCAL", "its voxel size [1.0, 0.0, 1.0] is not usable"),
        (("HeaderSize = 5",), "LOCAL", "its HeaderSize of 5 lies in its header"),
        (("HeaderSize = -2",), "LOCAL", "its HeaderSize of -2 cannot be"),
        (("HeaderSize = 999",), "LOCAL", "is truncated or has a wrong header"),
        ((), "LIST", "names 0 files"),
        ((), "a%d.raw 5 1 1", "names 0 files"),
        ((), "a%d.raw 1 7 1", "a1.raw, which is not there"),
        ((), "../a%d.raw 1 5 1", "outside of its folder"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, fields: tuple[str, ...], data: str, says: str
) -> None:
    path = written(tmp_path / "a.mha", *fields, data=data)
    with pytest.raises(MedrlError, match=rf"a\.mha: .*{re.escape(says)}"):
        read(path)


def test_voxels_that_do_not_fill_files_of_one_size(tmp_path: Path) -> None:
    for number in range(7):
        (tmp_path / f"{number}.raw").write_bytes(VOXELS.tobytes())
    path = written(tmp_path / "a.mhd", data="%d.raw 0 6 1")
    with pytest.raises(MedrlError, match="its voxels cannot lie in 7 files of one size"):
        read(path)
