"""`medrl info SCAN`: what a scan is, against what was written."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nibabel.affines import obliquity
from scipy.spatial.transform import Rotation

SHAPE, SPACING = (30, 36, 24), (2.0, 1.5, 3.0)


def noise(seed: int = 0, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(300, 60, shape).astype(np.float32)


def placed(turn=(0.0, 0.0, 0.0), codes: str = "LPS") -> np.ndarray:
    """An affine whose axes run to the given sides, turned about x, y and z (degrees)."""
    signs = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(codes), (1, 1, 1))
    affine = np.eye(4)
    rotation = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    affine[:3, :3] = rotation @ signs[:3, :3] @ np.diag(SPACING)
    affine[:3, 3] = (-20, 14, 3)
    return affine


def write(path: Path, array: np.ndarray, affine: np.ndarray, unit: str | None = "mm") -> Path:
    image = nib.Nifti1Image(array, affine)
    if unit:
        image.header.set_xyzt_units(unit, "sec")
    nib.save(image, path)
    return path


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SLA", "PIR"])
@pytest.mark.parametrize("turn", [(0, 0, 0), (9.0, -4.0, 6.0)])
def test_the_grid_is_that_of_nibabel(medrl, tmp_path, codes, turn):
    affine = placed(turn, codes)
    path = write(tmp_path / "a.nii.gz", noise(), affine)
    facts = medrl("info", path, "--json").json()
    image = nib.load(path)
    assert facts["error"] is None
    assert facts["format"] == "NIfTI"
    assert facts["header"]["version"] == "NIfTI-1"
    assert facts["packed"] == "gzip"
    assert facts["bytes"] == path.stat().st_size
    assert tuple(facts["shape"]) == image.shape
    assert facts["stored"] == "float32"
    assert facts["orientation"] == "".join(nib.aff2axcodes(image.affine))
    np.testing.assert_allclose(facts["spacing_mm"], image.header.get_zooms(), rtol=1e-5)
    np.testing.assert_allclose(facts["extent_mm"], np.multiply(SHAPE, SPACING), rtol=1e-5)
    np.testing.assert_allclose(facts["affine"], image.affine, atol=1e-5)
    expected = np.degrees(obliquity(image.affine).max())
    assert facts["oblique_degrees"] == pytest.approx(expected, abs=0.01)
    values = image.get_fdata()
    assert facts["values"]["min"] == pytest.approx(values.min(), rel=1e-6)
    assert facts["values"]["max"] == pytest.approx(values.max(), rel=1e-6)
    assert facts["modality"]["guessed"]


@pytest.mark.parametrize("ending", ["nrrd", "nhdr", "mha", "mhd", "nii", "nii.gz"])
def test_headers_alone_and_voxels_agree_in_every_format(medrl, tmp_path, ending):
    image = sitk.GetImageFromArray(np.rint(noise()).astype(np.int16).transpose(2, 1, 0))
    image.SetSpacing(SPACING)
    image.SetOrigin((4.0, -7.0, 11.0))
    image.SetDirection(Rotation.from_euler("z", 12, degrees=True).as_matrix().ravel().tolist())
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(image, str(path))
    read, only = medrl("info", path, "--json").json(), medrl("info", "--header", path, "--json")
    header = only.json()
    assert "values" not in header
    assert "models" not in header
    for key in ("shape", "spacing_mm", "extent_mm", "orientation", "stored", "channels"):
        assert header[key] == read[key], key
    np.testing.assert_allclose(header["affine"], read["affine"], atol=1e-4)
    assert header["oblique_degrees"] == pytest.approx(12, abs=0.01)
    assert tuple(read["shape"]) == image.GetSize()


def test_text_and_json_tell_the_same(medrl, tmp_path):
    path = write(tmp_path / "a.nii.gz", noise(), placed((9.0, -4.0, 6.0), "LAS"), None)
    told, facts = medrl("info", path), medrl("info", path, "--json").json()
    assert told.code == 0
    for remark in facts["remarks"]:
        assert remark in told.out
    for model in facts["models"]:
        assert f"{model['name']} ({model['verb']})" in told.out
    assert "30 x 36 x 24 voxels of 2 x 1.5 x 3 mm" in told.out
    assert "LAS (axes run to left, front, head); oblique by" in told.out


@pytest.mark.parametrize(
    ("change", "remark"),
    [
        ({"unit": None}, "does not state the unit"),
        ({"scale": 20.0}, "more than any body"),
        ({"scale": 0.01}, "less than a scan of a patient"),
        ({"shear": 0.3}, "not at right angles, off by"),
        ({"thick": 9.0}, "its slices are 27 mm apart"),
    ],
)
def test_what_is_odd_in_a_header_is_told(medrl, tmp_path, change, remark):
    affine = placed()
    affine[:3, :3] *= change.get("scale", 1.0)
    affine[1, 2] += change.get("shear", 0.0) * SPACING[2]
    affine[:3, 2] *= change.get("thick", 1.0)
    path = write(tmp_path / "a.nii.gz", noise(), affine, change.get("unit", "mm"))
    assert any(remark in line for line in medrl("info", path, "--json").json()["remarks"])
    usual = write(tmp_path / "b.nii.gz", noise(), placed())
    assert medrl("info", usual, "--json").json()["remarks"] == []


def test_the_angle_of_a_shear_is_right(medrl, tmp_path):
    affine = np.diag([*SPACING, 1.0])
    affine[1, 2] = np.tan(np.radians(15)) * SPACING[2]
    remarks = medrl("info", write(tmp_path / "a.nii.gz", noise(), affine), "--json").json()
    assert "off by 15.0 degrees" in " ".join(remarks["remarks"])


def test_left_and_right_unknown(medrl, tmp_path):
    image = nib.Nifti1Image(noise(), None)
    nib.save(image, tmp_path / "a.nii.gz")
    remarks = medrl("info", tmp_path / "a.nii.gz", "--json").json()["remarks"]
    assert any("where left and right are" in line for line in remarks)


def test_two_voxel_sizes_in_one_header(medrl, tmp_path):
    image = nib.Nifti1Image(noise(), placed())
    image.header["pixdim"][1:4] = (1, 1, 1)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    raw = nib.Nifti1Header.from_fileobj(nib.openers.Opener(str(tmp_path / "a.nii.gz")), check=False)
    facts = medrl("info", tmp_path / "a.nii.gz", "--json").json()
    differs = not np.allclose(raw["pixdim"][1:4], SPACING)
    assert differs == any("two voxel sizes" in line for line in facts["remarks"])


def test_no_voxel_size(medrl, tmp_path):
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 4 5 6\nencoding: raw\n\n"
    voxels = bytes(np.random.default_rng(0).integers(0, 255, 120).astype(np.uint8))
    (tmp_path / "a.nrrd").write_bytes(head.encode() + voxels)
    remarks = medrl("info", tmp_path / "a.nrrd", "--json").json()["remarks"]
    assert "the header gives no voxel size: 1 mm taken" in remarks


def test_the_sidecar_is_compared(medrl, tmp_path):
    frames = noise(shape=(12, 12, 8, 5))
    image = nib.Nifti1Image(frames, np.diag([3, 3, 3, 1.0]))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 2.0
    nib.save(image, tmp_path / "sub-1_bold.nii.gz")
    good = {"RepetitionTime": 2.0, "Modality": "MR", "SliceTiming": [0] * 8, "SliceThickness": 3}
    (tmp_path / "sub-1_bold.json").write_text(json.dumps(good))
    assert medrl("info", tmp_path / "sub-1_bold.nii.gz", "--json").json()["remarks"] == []
    bad = {
        "RepetitionTime": 0.8,
        "Modality": "PT",
        "SliceTiming": [0] * 31,
        "SpacingBetweenSlices": 5.0,
        "ImageOrientationPatientDICOM": [0.9, 0.43589, 0, -0.43589, 0.9, 0],
        "PatientName": "Doe^Jane",
    }
    (tmp_path / "sub-1_bold.json").write_text(json.dumps(bad))
    told = medrl("info", tmp_path / "sub-1_bold.nii.gz", "--json")
    said = " ".join(told.json()["remarks"])
    for part in ("0.8 s by its sidecar", "its sidecar PT", "times 31 slices", "5 mm apart"):
        assert part in said
    assert "Doe" not in told.out
    # A turn about the normal of the slices leaves them where they are.
    assert "turns the image" not in said
    bad["ImageOrientationPatientDICOM"] = [1, 0, 0, 0, 0.866, -0.5]
    (tmp_path / "sub-1_bold.json").write_text(json.dumps(bad))
    said = " ".join(medrl("info", tmp_path / "sub-1_bold.nii.gz", "--json").json()["remarks"])
    assert "turns the image by 30 degrees" in said


# What cannot be read ----------------------------------------------------------------------------


def test_of_a_scan_that_cannot_be_read_the_header_is_told(medrl, tmp_path):
    whole = write(tmp_path / "a.nii.gz", noise(), placed())
    (tmp_path / "cut.nii.gz").write_bytes(whole.read_bytes()[:2000])
    ended = medrl("info", tmp_path / "cut.nii.gz")
    assert ended.code == 1
    assert "30 x 36 x 24 voxels of 2 x 1.5 x 3 mm" in ended.out
    assert ended.err.count("\n") == 1
    assert ended.err.startswith(f"medrl: error: {tmp_path / 'cut.nii.gz'}")
    facts = medrl("info", tmp_path / "cut.nii.gz", "--json").json()
    assert facts["error"] in ended.err
    assert "models" not in facts


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.nii.gz", b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        ("a.nii.gz", b"", "empty file"),
        ("a.nrrd", b"\x89HDF\r\n\x1a\n" + b"\0" * 500, "HDF5"),
        ("a.nii", b"\x89PNG\r\n\x1a\n" + b"\0" * 500, "PNG"),
        ("a.mha", b"\0\0\0\x01\0\0\0\x10\0\0\0\x10\0\0\0\x10" + b"\0" * 300, "FreeSurfer .mgh"),
        ("a.nii", b"\x5c\x01\0\0" + b"\0" * 400, "Analyze"),
        ("a.nii", bytes(range(256)) * 4, "unknown"),
    ],
)
def test_what_is_no_scan_is_named_by_its_content(medrl, tmp_path, name, content, kind):
    (tmp_path / name).write_bytes(content)
    ended = medrl("info", tmp_path / name)
    assert ended.code == 1
    assert kind in ended.out + ended.err
    assert ended.err.count("\n") == 1
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("ending", ["nii", "nii.gz", "nrrd", "mha"])
def test_damaged_headers_end_in_one_line_at_the_most(medrl, tmp_path, ending):
    rng = np.random.default_rng(0)
    image = sitk.GetImageFromArray(rng.integers(0, 99, (5, 6, 7)).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"))
    whole = (tmp_path / f"a.{ending}").read_bytes()
    for number in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, min(len(content), 400), 6):
            content[at] = rng.choice([0, 1, 32, 45, 127, 255])
        path = tmp_path / f"{number}.{ending}"
        path.write_bytes(content[: rng.integers(1, len(content))] if number % 3 else content)
        ended = medrl("info", path)
        assert ended.code in (0, 1)
        assert ended.err.count("\n") == ended.code
        assert "unexpected" not in ended.err
        assert ended.out.startswith(str(path))


def test_a_scan_that_is_not_there(medrl, tmp_path):
    good = write(tmp_path / "a.nii.gz", noise(), placed())
    ended = medrl("info", tmp_path / "b.nii.gz", good)
    assert ended.code == 1
    assert "no such file" in ended.err
    assert "30 x 36 x 24 voxels" in ended.out
    facts = medrl("info", tmp_path / "b.nii.gz", good, "--json").json()
    assert [one["error"] is None for one in facts] == [False, True]
    assert medrl("info", "no-such-model").code == 2


def test_scans_and_models_on_one_line(medrl, bundle, tmp_path):
    path = write(tmp_path / "a.nii.gz", noise(), placed())
    scan, model = medrl("info", path, bundle, "--json").json()
    assert scan["path"] == str(path)
    assert model["task"] == "landmark"


# DICOM ------------------------------------------------------------------------------------------


@pytest.fixture
def series(data_root, tmp_path) -> Path:
    """Eight real slices with a name in them."""
    folder = tmp_path / "series"
    folder.mkdir()
    files = sorted((data_root / "body_ct_mr" / "example_ct_dicom").iterdir())[:8]
    for number, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "ID-4711"
        dataset.SeriesDescription = "Doe Jane thorax"
        dataset.save_as(folder / f"{number}.dcm")
    return folder


def test_a_dicom_series(medrl, series):
    ended = medrl("info", series)
    facts = medrl("info", series, "--json").json()
    assert ended.code == 0
    assert facts["modality"] == {"name": "CT", "guessed": False, "source": "its header says so"}
    first = pydicom.dcmread(series / "0.dcm")
    assert facts["shape"] == [first.Columns, first.Rows, 8]
    np.testing.assert_allclose(facts["spacing_mm"][:2], first.PixelSpacing[::-1], rtol=1e-5)
    assert facts["header"]["transfer syntax"] == first.file_meta.TransferSyntaxUID.name
    for text in (ended.out, ended.err, json.dumps(facts)):
        assert "Doe" not in text
        assert "4711" not in text


def test_the_same_series_as_zip(medrl, series, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in series.iterdir():
            archive.write(file, file.name)
    folder, packed = (medrl("info", path, "--json").json() for path in (series, tmp_path / "a.zip"))
    assert packed["format"] == "zip"
    for key in ("shape", "affine", "values", "modality", "header"):
        assert packed[key] == folder[key]


def test_several_series_are_listed_and_one_can_be_chosen(medrl, series):
    for number in range(5):
        dataset = pydicom.dcmread(series / f"{number}.dcm")
        dataset.SeriesInstanceUID = "1.2.3"
        dataset.save_as(series / f"{number}.dcm")
    ended = medrl("info", series)
    assert (ended.code, ended.err) == (0, "")
    assert "1.2.3 (CT, 5 files)" in ended.out
    assert "Doe" not in ended.out
    facts = medrl("info", series, "--json").json()
    assert sorted(one["files"] for one in facts["series"]) == [3, 5]
    one = medrl("info", series, "--series", "1.2.3", "--json").json()
    assert one["shape"][2] == 5
    assert medrl("info", series, "--series", "9.9").code == 1


def test_a_missing_slice(medrl, series):
    (series / "3.dcm").unlink()
    ended = medrl("info", series)
    assert ended.code == 1
    assert "slices are missing" in ended.err
    assert "512 x 512 x 7" in ended.out
    assert "modality" not in ended.out or "CT" in ended.out


def test_gaps_between_slices(medrl, series):
    for file in series.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SliceThickness = 0.5
        dataset.SpacingBetweenSlices = 7
        dataset.save_as(file)
    remarks = " ".join(medrl("info", series, "--json").json()["remarks"])
    assert "nothing was seen between them" in remarks
    assert "states a slice spacing of 7 mm" in remarks


# What it shows ----------------------------------------------------------------------------------


def test_label_maps_and_their_names(medrl, tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[3:12, 4:12, 4:12], array[14:20, 14:20, 4:12] = 1, 2
    path = write(tmp_path / "case_dseg.nii.gz", array, placed())
    (tmp_path / "case_dseg.tsv").write_text("index\tname\n1\tliver\n2\tspleen\n")
    facts = medrl("info", path, "--json").json()
    assert facts["modality"]["name"] == "label map"
    assert facts["labels"]["numbers"] == [1, 2]
    assert facts["labels"]["names"] == {"1": "liver", "2": "spleen"}
    assert all(model["fits"] is False for model in facts["models"])
    assert "liver, spleen" in medrl("info", path).out


def test_what_real_scans_are(medrl, data_root):
    expected = {
        "body_ct_mr/example_ct.nii.gz": "CT",
        "sts_ct_pet/pet/STS_002.nii.gz": "PET",
        "msd_hippocampus/images/hippocampus_001.nii.gz": "MR",
        "vertebra_ct_mr/sample_ct/sub-ct_label-22_ct.nii.gz": "CT",
        "ct_lung_pair/CT_3D_lung_fixed_mask.mha": "mask",
    }
    paths = [data_root / name for name in expected]
    facts = medrl("info", *paths, "--json").json()
    assert [one["modality"]["name"] for one in facts] == list(expected.values())


def test_every_shipped_model_has_its_line(medrl, tmp_path):
    from medrl.bundles import available

    facts = medrl("info", write(tmp_path / "a.nii.gz", noise(), placed()), "--json").json()
    assert [model["name"] for model in facts["models"]] == [b.name for b in available()]
    for model in facts["models"]:
        assert model["fits"] is True or model["reasons"]


def test_a_huge_scan_is_not_read(medrl, tmp_path):
    """A header of five thousand million voxels, of which none is there."""
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 1200))
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag([0.1, 0.1, 0.1, 1]), code=1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    path = tmp_path / "a.nii"
    with path.open("wb") as stream:
        header.write_to(stream)
        stream.truncate(352 + 2 * 2000 * 2000 * 1200)
    ended = medrl("info", path)
    assert ended.code == 0
    assert "2000 x 2000 x 1200 voxels" in ended.out
    assert "not looked at" in ended.out


def test_headers_are_told_without_pytorch(tmp_path):
    path = write(tmp_path / "a.nii.gz", noise(), placed())
    code = (
        f"import sys, medrl.cli; medrl.cli.main(['info', '--header', {str(path)!r}]);"
        "assert not {'torch', 'monai', 'SimpleITK'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_link_and_a_strange_name(medrl, tmp_path):
    path = write(tmp_path / "T1[bold].nii.gz", noise(), placed())
    assert str(path) in medrl("info", path).out
    shutil.copy(path, tmp_path / "sub-01_T2w.nii.gz")
    facts = medrl("info", tmp_path / "sub-01_T2w.nii.gz", "--json").json()
    assert facts["modality"]["source"] == "its name ends in _T2w"
    brain = next(model for model in facts["models"] if model["name"] == "brain-t1")
    assert brain["fits"] is False
    assert "T2w" in brain["reasons"][0]


@pytest.mark.parametrize("contrast", ["T1w", "T2w", "PDw"])
def test_a_contrast_that_no_name_tells_is_told_by_the_model(medrl, data_root, tmp_path, contrast):
    templates = data_root / "afids_templates" / "images"
    path = tmp_path / "head.nii.gz"
    path.write_bytes((templates / f"MNI152Lin_{contrast}.nii.gz").read_bytes())
    models = {one["name"]: one for one in medrl("info", path, "--json").json()["models"]}
    assert models["brain-t1"]["fits"] is (contrast == "T1w")
    assert ("contrast" in " ".join(models["brain-t1"]["reasons"])) == (contrast != "T1w")
    assert models["rigid-head"]["fits"] is True
