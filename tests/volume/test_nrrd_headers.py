"""NRRD headers as they are met: what they say is used, as ITK has it where it does, or refused."""

import bz2
import gzip
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from monai.data.meta_tensor import MetaTensor

from medrl import MedrlError, read
from medrl.data.targets import Target, read_mask
from medrl.volume.read import read_labels

#: (I, J, K), as a file has them: the first axis the fastest.
VOXELS = np.random.default_rng(0).integers(0, 900, (3, 4, 5)).astype(np.int16)
PLACE = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"
LPS = f"space: left-posterior-superior\n{PLACE}"


def raw(array: np.ndarray = VOXELS) -> bytes:
    return array.tobytes(order="F")


def header(*fields: str, array: np.ndarray = VOXELS, encoding: str = "raw") -> bytes:
    kind = {"int16": "short", "uint8": "uchar", "float32": "float"}[array.dtype.name]
    lines = [
        "NRRD0005",
        f"type: {kind}",
        f"dimension: {array.ndim}",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"encoding: {encoding}",
        "endian: little",
        *fields,
    ]
    return "\n".join(lines).encode()


def written(path: Path, *fields: str, array: np.ndarray = VOXELS) -> Path:
    path.write_bytes(header(*fields, array=array) + b"\n\n" + raw(array))
    return path


def quietly(path: Path) -> MetaTensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(path)


def check_as_itk(path: Path) -> tuple[str, ...]:
    """The scan is what ITK reads, where ITK has it; its remarks."""
    scan, image = quietly(path), sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    np.testing.assert_array_equal(scan[0].numpy(), values.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ scan.affine.numpy()
    want = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    np.testing.assert_allclose(lps[:3, :3], want, atol=1e-9)
    np.testing.assert_allclose(lps[:3, 3], image.GetOrigin(), atol=1e-9)
    return scan.meta["remarks"]


# Where a scan lies.


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ((LPS,), ""),
        ((f"space: RAS\n{PLACE}",), ""),
        ((f"space: left-anterior-superior\n{PLACE}",), ""),
        ((LPS, 'space units: "mm" "mm" "mm"'), ""),
        ((LPS, "centers: node node node"), ""),
        ((LPS, "thicknesses: 9 9 9"), ""),
        ((LPS, "measurement frame: (1,0,0) (0,1,0) (0,0,1)"), ""),
        ((LPS, "kinds: domain domain domain"), ""),
        ((LPS, "DWMRI_b-value:=1000", "some key:=some: value"), ""),
        ((f"space dimension: 3\n{PLACE}",), "names no space: LPS taken"),
        ((f"space: scanner-xyz\n{PLACE}",), "'scanner-xyz', which does not say where left"),
        ((f"space: 3D-left-handed\n{PLACE}",), "'3d-left-handed', which does not say"),
        (("spacings: 2 3 4",), "names no space"),
        (("spacings: 2 3 4", "axis mins: 10 20 30"), "names no space"),
        (("spacings: 2 3 4", "axismins: 10 20 30", "centers: node node node"), "no space"),
        (("spacings: 2 3 4", "axis mins: 1 2 3", "centerings: cell cell cell"), "no space"),
        ((LPS, "old min: -1000", "old max: 3000"), "(old min, old max)"),
    ],
)
def test_a_scan_lies_where_itk_has_it(tmp_path: Path, fields: tuple[str, ...], told: str) -> None:
    remarks = check_as_itk(written(tmp_path / "a.nrrd", *fields))
    assert told in " ".join(remarks)
    assert bool(remarks) == bool(told)


@pytest.mark.parametrize("centers", ["node", "cell"])
def test_the_voxel_size_may_follow_from_mins_and_maxs(tmp_path: Path, centers: str) -> None:
    """Between the centres of the outermost voxels, or between their outer faces."""
    size, first = np.array([2.0, 3, 4]), np.array([10.0, 20, 30])
    low = first if centers == "node" else first - size / 2
    high = low + size * (np.array(VOXELS.shape) - (centers == "node"))
    fields = [f"axis mins: {' '.join(map(str, low))}", f"axis maxs: {' '.join(map(str, high))}"]
    path = written(tmp_path / "a.nrrd", *fields, f"centers: {' '.join([centers] * 3)}")
    scan = quietly(path)
    np.testing.assert_allclose(
        np.diag([-1, -1, 1, 1]) @ scan.affine.numpy(), lps_affine(size, first)
    )
    assert "ITK and 3D Slicer ignore" in scan.meta["remarks"][0]
    written(path, *fields, f"centers: {' '.join([centers] * 3)}", "spacings: 5 6 7")
    scan = quietly(path)
    assert "contradict its spacings: the spacings were taken" in scan.meta["remarks"][0]
    np.testing.assert_allclose(np.abs(np.diag(scan.affine))[:3], (5, 6, 7))


def lps_affine(size: np.ndarray, first: np.ndarray) -> np.ndarray:
    affine = np.diag([*size, 1.0])
    affine[:3, 3] = first
    return affine


@pytest.mark.parametrize(
    ("unit", "mm"), [("cm", 10), ("m", 1000), ("um", 1e-3), ("µm", 1e-3), ("microns", 1e-3)]
)
def test_units_are_brought_to_mm(tmp_path: Path, unit: str, mm: float) -> None:
    want = lps_affine(np.array([2.0, 3, 4]) * mm, np.array([10.0, 20, 30]) * mm)
    path = written(tmp_path / "a.nrrd", LPS, f'space units: "{unit}" "{unit}" "{unit}"')
    scan = quietly(path)
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ scan.affine.numpy(), want)
    assert f"its unit of length is {unit}: brought to mm" in " ".join(scan.meta["remarks"])
    fields = ("spacings: 2 3 4", "axis mins: 10 20 30", "centers: node node node")
    path = written(path, *fields, f'units: "{unit}" "{unit}" "{unit}"')
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ quietly(path).affine.numpy(), want)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("right-anterior-superior-time", (1, 1)),
        ("RAST", (1, 1)),
        ("LAST", (-1, 1)),
        ("LPST", (-1, -1)),
        ("left-posterior-superior-time", (-1, -1)),
    ],
)
@pytest.mark.parametrize("first", [False, True])
def test_spaces_with_time(tmp_path: Path, space: str, signs: tuple[int, int], first: bool) -> None:
    series = np.stack([VOXELS, VOXELS + 1], axis=0 if first else -1)
    rows = ["(2,0,0,0)", "(0,3,0,0)", "(0,0,4,0)"]
    rows.insert(0 if first else 3, "(0,0,0,1.5)")
    path = written(
        tmp_path / "a.nrrd",
        f"space: {space}",
        f"space directions: {' '.join(rows)}",
        "space origin: (10,20,30,7)",
        array=series,
    )
    scan = quietly(path)
    np.testing.assert_array_equal(scan.numpy(), [VOXELS, VOXELS + 1])
    want = lps_affine(np.array([2.0, 3, 4]), np.array([10.0, 20, 30]))
    np.testing.assert_allclose(scan.affine, np.diag([*signs, 1, 1]) @ want)
    assert bool(scan.meta["remarks"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (("kinds: domain domain domain time", "spacings: 2 3 4 1"), ""),
        (("kinds: domain domain domain list", "spacings: 2 3 4 nan"), ""),
        (("spacings: 2 3 4 nan",), ""),
        (("spacings: 2 3 4 1",), "the first three taken"),
        (("kinds: domain domain domain domain", "spacings: 2 3 4 1"), "the first three taken"),
        (("space: LPS", "space directions: (2,0,0) (0,3,0) (0,0,4) none"), ""),
    ],
)
def test_four_axes(tmp_path: Path, fields: tuple[str, ...], told: str) -> None:
    series = np.stack([VOXELS, VOXELS + 1], axis=-1)
    scan = quietly(written(tmp_path / "a.nrrd", *fields, array=series))
    np.testing.assert_array_equal(scan.numpy(), [VOXELS, VOXELS + 1])
    np.testing.assert_allclose(np.abs(np.diag(scan.affine))[:3], (2, 3, 4))
    assert told in " ".join(scan.meta["remarks"])
    assert ("first three" in " ".join(scan.meta["remarks"])) == bool(told)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ((LPS, 'space units: "pixel" "pixel" "pixel"'), "its unit of length is 'pixel'"),
        ((LPS, 'space units: "mm" "mm"'), "its spaceunits cannot be"),
        (("space: LPS", "space directions: (2,0,0) (0,3,0)"), "do not fit its axes"),
        (("space: LPS", "space directions: (2,0,0) (0,3,0) none"), "give 2 axes of space"),
        (("space: LPS", "space directions: (2,0,0) (0,3,0) (0,0,x)"), "spacedirections cannot be"),
        (("space: RAST", "space directions: (2,0,0,0) (0,3,0,0) (0,0,4,1)"), "axes of space"),
        ((LPS.replace("30)", "nan)"),), "NaN or infinite"),
        ((LPS.replace(",20", ""),), "its space origin is not 3 numbers"),
        (("spacings: 2 3",), "its spacings cannot be"),
        (("spacings: 2 3 0",), "singular"),
        (("just some words",), "header is damaged"),
        ((LPS, LPS), "gives 'space' twice"),
        ((LPS, "line skip: -1"), "line skip of -1"),
        ((LPS, "byte skip: -2"), "byte skip of -2"),
        ((LPS, "data file: a%03d.raw 1 3 0"), "names 0 files"),
        ((LPS, "data file: a%03d.raw 1 3 1"), "a001.raw, which is not there"),
        ((LPS, "data file: LIST"), "names 0 files"),
        ((LPS, "data file: LIST\nmissing.raw"), "missing.raw, which is not there"),
        ((LPS, "data file: LIST\n../a.raw"), "outside of its folder"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, fields: tuple[str, ...], says: str) -> None:
    path = written(tmp_path / "a.nrrd", *fields)
    with pytest.raises(MedrlError, match=rf"a\.nrrd: .*{re.escape(says)}"):
        read(path)


# Where the voxels are.


ENCODED = {
    "raw": lambda content: content,
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "ascii": lambda content: " ".join(map(str, np.frombuffer(content, np.int16))).encode(),
}


@pytest.mark.parametrize("encoding", ENCODED)
@pytest.mark.parametrize("named", ["data file: LIST", "data file: LIST 2", "pattern", "backwards"])
def test_voxels_in_several_files(tmp_path: Path, encoding: str, named: str) -> None:
    for number in range(5):
        content = ENCODED[encoding](raw(VOXELS[:, :, number]))
        (tmp_path / f"part_{number + 1:03d}.raw").write_bytes(content)
    names = "\n".join(f"part_{number + 1:03d}.raw" for number in range(5))
    field = f"{named}\n{names}" if "LIST" in named else "data file: part_%03d.raw 1 5 1"
    if named == "backwards":
        field = "data file: part_%03d.raw 5 1 -1 2"
    path = tmp_path / "a.nhdr"
    path.write_bytes(header(LPS, field, encoding=encoding) + b"\n")
    want = VOXELS[:, :, ::-1] if named == "backwards" else VOXELS
    np.testing.assert_array_equal(quietly(path)[0].numpy(), want)
    np.testing.assert_array_equal(read_labels(path)[0].numpy(), want)
    if encoding in ("raw", "gzip"):
        check_as_itk(path)


def test_what_precedes_the_voxels_of_each_file(tmp_path: Path) -> None:
    for number in range(5):
        content = b"one line\nand another\n1234" + raw(VOXELS[:, :, number])
        (tmp_path / f"{number}.raw").write_bytes(content)
    path = tmp_path / "a.nhdr"
    path.write_bytes(header(LPS, "line skip: 2", "byte skip: 4", "data file: %d.raw 0 4 1"))
    np.testing.assert_array_equal(quietly(path)[0].numpy(), VOXELS)
    path.write_bytes(header(LPS, "byte skip: -1", "data file: %d.raw 0 4 1"))
    np.testing.assert_array_equal(quietly(path)[0].numpy(), VOXELS)
    path.write_bytes(header(LPS, "line skip: 2", "byte skip: 3", "data file: %d.raw 0 4 1"))
    with pytest.raises(MedrlError, match="holds more voxels than its header declares"):
        read(path)
    (tmp_path / "3.raw").write_bytes(b"short")
    with pytest.raises(MedrlError, match=r"a\.nhdr: is truncated"):
        read(path)


# Segmentations of 3D Slicer.


def segmentation(path: Path, layers: np.ndarray, *segments: tuple[str, int, int]) -> Path:
    """Layers (L, I, J, K); segments as name, value and layer."""
    fields = [
        "space: left-posterior-superior",
        "kinds: list domain domain domain",
        "space directions: none (1,0,0) (0,1,0) (0,0,1)",
        "space origin: (0,0,0)",
    ]
    for number, (name, value, layer) in enumerate(segments):
        fields.append(f"Segment{number}_ID:=Segment_{number}")
        fields.append(f"Segment{number}_LabelValue:={value}")
        fields.append(f"Segment{number}_Layer:={layer}")
        fields.append(f"Segment{number}_Name:={name}")
    return written(path, *fields, array=layers)


def test_segments_are_found_in_their_layers(tmp_path: Path) -> None:
    layers = np.zeros((2, 6, 7, 8), np.uint8)
    layers[0, 1:3, 1:3, 1:3], layers[0, 4:, 4:, 4:] = 1, 2
    layers[1, 2:5, 2:5, 2:5] = 1
    path = segmentation(
        tmp_path / "a.seg.nrrd", layers, ("Liver", 1, 0), ("Tumour é", 2, 0), ("Vein", 1, 1)
    )
    labels = read_labels(path)
    assert labels.shape == (2, 6, 7, 8)
    assert labels.meta["segments"][2] == ("Vein", 1, 1)
    assert labels.meta["segments"][1].name == "Tumour é"

    def found(name: str, *values: int) -> np.ndarray:
        return read_mask(path, Target(name, values))[0].numpy().astype(bool)

    np.testing.assert_array_equal(found("any", 2), layers[0] == 2)
    # Two segments have the value 1: the name says which is meant.
    np.testing.assert_array_equal(found("vein", 1), layers[1] == 1)
    np.testing.assert_array_equal(found("Liver", 1), layers[0] == 1)
    np.testing.assert_array_equal(found("liver", 1, 2), layers[0] > 0)
    with pytest.raises(MedrlError, match=r"label 1 is that of Liver \(layer 0\), Vein \(layer 1\)"):
        found("organ", 1)
    assert not found("any", 3).any()


def test_layers_without_a_table_of_segments(tmp_path: Path) -> None:
    layers = np.zeros((2, 6, 7, 8), np.uint8)
    layers[0, 1:3], layers[1, 2:5] = 1, 2
    path = segmentation(tmp_path / "a.seg.nrrd", layers)
    for value in (1, 2):
        mask = read_mask(path, Target("any", (value,)))
        np.testing.assert_array_equal(mask[0].numpy() > 0, (layers == value).any(axis=0))


def test_a_series_is_no_mask(tmp_path: Path) -> None:
    sitk.WriteImage(
        sitk.JoinSeries([sitk.Image(4, 4, 4, sitk.sitkUInt8)] * 3), str(tmp_path / "a.nii.gz")
    )
    with pytest.raises(MedrlError, match=r"a\.nii\.gz: holds 3 volumes; a mask is one"):
        read_mask(tmp_path / "a.nii.gz", Target("any"))
