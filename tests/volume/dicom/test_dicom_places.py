"""Where slices lie, wherever a header says it, and which of them make one volume."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_writer import (
    AFFINE,
    CT,
    MR,
    PET,
    STORED,
    K,
    frames,
    header,
    item,
    jpeg_lossless,
    place_of,
    plain,
    position,
    scaling,
    shared_groups,
)

from medrl import MedrlError, read
from medrl.volume.space import same_grid

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def check(path, want=STORED, affine=AFFINE, remarks=()) -> None:
    scan = read(path)
    np.testing.assert_allclose(scan.numpy()[0].transpose(2, 1, 0), want)
    np.testing.assert_allclose(scan.affine, affine, atol=1e-5)
    assert len(scan.meta["remarks"]) == len(remarks)
    for said, expected in zip(scan.meta["remarks"], remarks, strict=True):
        assert expected in said


@pytest.mark.parametrize("order", [[3, 0, 5, 1, 4, 2], [0, 2, 4, 1, 3, 5], [0, 5, 4, 3, 2, 1]])
def test_frames_in_any_order(tmp_path, order):
    lines = {k: {"PixelValueTransformationSequence": scaling(1.5 + k, -10 * k)} for k in order}
    check(frames(tmp_path / "a.dcm", order, each=lines.get), STORED * (1.5 + K) - 10 * K)


def test_frames_stored_against_the_normal_stay_so(tmp_path):
    affine = AFFINE.copy()
    affine[:3, 2:] = [[0, 10], [0, 20], [-3, 20]]
    check(frames(tmp_path / "a.dcm", [5, 4, 3, 2, 1, 0]), STORED[::-1], affine)
    image = sitk.ReadImage(str(tmp_path / "a.dcm"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), STORED[::-1])


def enhanced_slices(folder, where: str, *, count: bool = True, kind=MR, encode=None):
    """An enhanced file for each slice; what tells them apart is in the groups of its one frame."""
    folder.mkdir()
    for k in range(len(STORED)):
        own = {"PlanePositionSequence": place_of(k)}
        own["PixelValueTransformationSequence"] = scaling(1.5 + k, -10 * k)
        file = frames(
            folder / f"{9 - k}.dcm",
            [k],
            kind=kind,
            shared=shared_groups(**(own if where == "shared" else {})),
            each=lambda _, own=own: own if where == "each" else {"PlanePositionSequence": []},
            number=k,
            encode=encode,
        )
        if not count:
            dataset = pydicom.dcmread(file)
            del dataset.NumberOfFrames
            dataset.save_as(file)
    return folder


@pytest.mark.parametrize("where", ["each", "shared"])
@pytest.mark.parametrize("kind", [CT, MR, PET])
def test_enhanced_files_of_one_frame_make_a_series(tmp_path, kind, where):
    want = STORED * (1.5 + K) - 10 * K
    check(enhanced_slices(tmp_path / "a", where, kind=kind), want)
    check(enhanced_slices(tmp_path / "b", where, kind=kind, count=False), want)
    with pytest.raises(MedrlError, match="2D image"):
        read(tmp_path / "a" / "9.dcm")


def test_enhanced_files_of_one_frame_that_gdcm_decodes(tmp_path):
    folder = enhanced_slices(tmp_path / "a", "each", encode=jpeg_lossless)
    check(folder, STORED * (1.5 + K) - 10 * K)


def test_several_files_of_several_frames(tmp_path):
    for number, order in enumerate(([4, 3], [0, 5], [1, 2])):
        frames(tmp_path / f"{number}.dcm", order, number=number)
    check(tmp_path)


def test_place_of_each_frame_instead_of_all(tmp_path):
    each = {
        "PlaneOrientationSequence": [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        "PixelMeasuresSequence": [item(PixelSpacing=[2, 1.5])],
    }
    shared = item(FrameAnatomySequence=[])
    check(frames(tmp_path / "a.dcm", shared=shared, each=lambda k: each))
    # Or of the file, in old files.
    top = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2, 1.5]}
    check(frames(tmp_path / "b.dcm", shared=shared, **top))


def test_positions_count_more_than_the_spacing_that_is_said(tmp_path):
    check(plain(tmp_path / "a", SpacingBetweenSlices=3, SliceThickness=5))
    said = ["3 mm apart by their positions and 3.5 mm by SpacingBetweenSlices"]
    check(plain(tmp_path / "b", SpacingBetweenSlices=3.5), remarks=said)
    measures = [item(PixelSpacing=[2, 1.5], SpacingBetweenSlices=3.5)]
    shared = shared_groups(PixelMeasuresSequence=measures)
    check(frames(tmp_path / "c.dcm", shared=shared), remarks=said)


@pytest.mark.parametrize(
    ("order", "marks", "says"),
    [
        ([0, 1, 2, 0, 1, 2], [{}] * 6, "3 slices lie where another lies (several echoes"),
        (
            [0, 1, 2, 0, 1, 2],
            [{"TemporalPositionIndex": 1 + n // 3} for n in range(6)],
            "3 slices lie where another lies (2 times in one series)",
        ),
        (
            [0, 1, 4, 5],
            [{"StackID": name} for name in "1122"],
            "no one volume (2 stacks in one series)",
        ),
        ([0, 1, 3, 4, 5], [{"StackID": "1"}] * 5, "1 slices are missing"),
        ([2], [{}], "2D image"),
    ],
)
def test_frames_that_are_no_one_volume(tmp_path, order, marks, says):
    left = iter(marks)
    file = frames(
        tmp_path / "a.dcm", order, each=lambda k: {"FrameContentSequence": [item(**next(left))]}
    )
    with pytest.raises(MedrlError) as caught:
        read(file)
    assert says in str(caught.value)


def test_frames_in_two_directions_and_frames_without_a_place(tmp_path):
    across = [item(ImageOrientationPatient=[0, 1, 0, 0, 0, -1])]
    file = frames(
        tmp_path / "a.dcm", each=lambda k: {"PlaneOrientationSequence": across} if k > 3 else {}
    )
    with pytest.raises(MedrlError, match=r"size or orientation \(2 kinds, 4, 2 slices\)"):
        read(file)
    nowhere = frames(tmp_path / "b.dcm", each=lambda k: {"PlanePositionSequence": []})
    with pytest.raises(MedrlError, match=r"have no ImagePositionPatient.*the first is in b\.dcm"):
        read(nowhere)
    captured = header("1.2.840.10008.5.1.4.1.1.7.3", 0, NumberOfFrames=6)
    captured.PixelData = STORED.tobytes()
    captured.save_as(tmp_path / "c.dcm", enforce_file_format=True)
    with pytest.raises(MedrlError, match="does not place its frames in space"):
        read(tmp_path / "c.dcm")


@pytest.mark.parametrize("count", ["-6", "999999", "x"])
def test_numbers_of_frames_that_cannot_be(tmp_path, count):
    """Millions of frames of a few pixels could be in a small compressed file."""
    with pydicom.config.disable_value_validation():
        dataset = pydicom.dcmread(frames(tmp_path / "a.dcm", encode=jpeg_lossless))
        dataset["NumberOfFrames"] = pydicom.DataElement(
            "NumberOfFrames", "LO", count, already_converted=True
        )
        dataset.Rows = dataset.Columns = 1
        dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(MedrlError, match=r"a\.dcm (\(damaged|holds 999999 frames)"):
        read(tmp_path / "a.dcm")


@pytest.mark.parametrize("step", [3, -3])
def test_a_reconstruction_of_a_gamma_camera(tmp_path, step):
    """The place is that of a detector; the sign of the step says which way slices go."""
    dataset = header(
        "1.2.840.10008.5.1.4.1.1.20",
        0,
        NumberOfFrames=6,
        ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        SliceVector=[1, 2, 3, 4, 5, 6],
        PixelSpacing=[2, 1.5],
        SpacingBetweenSlices=step,
        DetectorInformationSequence=[
            item(ImagePositionPatient=position(0), ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        ],
    )
    dataset.PixelData = STORED.tobytes()
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    affine = AFFINE.copy()
    affine[2, 2] = step
    check(tmp_path / "a.dcm", STORED, affine)
    image = sitk.ReadImage(str(tmp_path / "a.dcm"))
    last = image.TransformIndexToPhysicalPoint((0, 0, 5))
    np.testing.assert_allclose(last, [-10, -20, 5 + 5 * step], atol=1e-6)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "WHOLE BODY", "EMISSION"]
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(MedrlError, match="does not place its frames"):
        read(tmp_path / "a.dcm")


def rounded(digits: int) -> dict[int, dict]:
    """Geometry of an oblique plane, every other slice written with fewer digits."""
    angle = np.radians(33.3)
    cosines = np.array([np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0])
    spacing = np.array([0.9765625, 0.9765625])
    many = {
        "ImageOrientationPatient": cosines.round(12).tolist(),
        "PixelSpacing": spacing.tolist(),
    }
    few = {
        "ImageOrientationPatient": cosines.round(digits).tolist(),
        "PixelSpacing": spacing.round(digits).tolist(),
    }
    return {k: few if k % 2 else many for k in range(len(STORED))}


@pytest.mark.parametrize("digits", [4, 5, 6, 7])
def test_slices_whose_headers_are_rounded_differently(tmp_path, digits):
    said = rounded(digits)
    scan = read(plain(tmp_path / "a", each=said.get))
    np.testing.assert_array_equal(scan.numpy()[0].transpose(2, 1, 0), STORED)

    def groups(k):
        cosines, spacing = said[k].values()
        return {
            "PlaneOrientationSequence": [item(ImageOrientationPatient=cosines)],
            "PixelMeasuresSequence": [item(PixelSpacing=spacing)],
        }

    other = read(frames(tmp_path / "a.dcm", each=groups))
    np.testing.assert_array_equal(other.numpy(), scan.numpy())
    np.testing.assert_allclose(other.affine, scan.affine, atol=1e-4)


def test_copies_whose_places_are_rounded_differently_are_copies(tmp_path):
    folder = plain(tmp_path / "a", each=lambda k: {"PixelSpacing": [0.5, 0.5]})
    affine = AFFINE * np.array([1 / 3, 1 / 4, 1, 1])
    dataset = pydicom.dcmread(folder / "7.dcm")
    dataset.ImagePositionPatient = [-10.0000001, -19.999, 11.0049]
    dataset.save_as(folder / "copy.dcm")
    check(folder, STORED, affine, ["1 slices are there twice"])
    # Under another name it is another image at the same place.
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.99"
    dataset.save_as(folder / "copy.dcm")
    with pytest.raises(MedrlError, match="1 slices lie where another lies"):
        read(folder)


def test_what_is_the_same_is_a_matter_of_millimetres_not_of_digits(tmp_path):
    """The same difference is none in twelve columns and is one in a thousand."""
    other = {"PixelSpacing": [2, 1.501]}
    read(plain(tmp_path / "small", each=lambda k: other if k % 2 else {}))
    wide = np.zeros((6, 10, 1000), np.uint16)
    wide[..., ::7] = 100
    with pytest.raises(MedrlError, match=r"size or orientation \(2 kinds, 3, 3"):
        read(plain(tmp_path / "wide", wide, Columns=1000, each=lambda k: other if k % 2 else {}))


def test_directions_that_are_none(tmp_path):
    for number, tags in enumerate(
        [
            {"ImageOrientationPatient": [1, 0, 0, 0.5, 1, 0]},
            {"ImageOrientationPatient": [0] * 6},
            {"PixelSpacing": [0, 1]},
        ]
    ):
        with pytest.raises(MedrlError, match="not perpendicular directions"):
            read(plain(tmp_path / str(number), **tags))
    with pytest.raises(MedrlError, match=r"place of the slice in 4\.dcm is damaged"):
        read(plain(tmp_path / "d", ImageOrientationPatient=[1, 0, 0, 0, 1]))


def test_grids_are_the_same_to_a_part_of_a_voxel():
    affine = np.diag([0.9765625, 0.9765625, 3, 1])
    affine[:3, 3] = -250.123456789
    shape = (512, 512, 100)
    assert same_grid(affine, affine.astype(np.float32), shape)
    assert same_grid(affine, affine.round(6), shape)
    for entry, by in (((0, 0), 1e-5), ((1, 0), 1e-5), ((2, 3), 2e-3)):
        moved = affine.copy()
        moved[entry] += by
        assert not same_grid(affine, moved, shape)
        assert same_grid(affine, moved, shape, within=0.01)
    # Of a scan of a mouse, a thousandth of a millimetre is a lot.
    scale = np.diag([0.01, 0.01, 0.01, 1])
    assert not same_grid(affine @ scale, (affine @ scale).round(3), shape)
