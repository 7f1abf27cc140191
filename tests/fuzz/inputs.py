"""Small whole inputs of every kind that medrl reads; the fuzzer damages these."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import SimpleITK as sitk
import torch
from monai.data.meta_tensor import MetaTensor
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    RLELossless,
)

from medrl.trajectory import AgentPath, Trajectory, write_trajectory
from medrl.volume.points import write_curves, write_markups, write_points_csv
from medrl.volume.transform_files import write_transform

SHAPE = (6, 7, 8)
FIRST_EDITION = Path(__file__).parents[1] / "trajectory" / "data" / "first_edition.trajectory.json"


@dataclass(frozen=True)
class Link:
    """A symbolic link in an input's folder."""

    target: str


Files = dict[str, "bytes | Link"]


@dataclass(frozen=True)
class Seed:
    """One input.

    Attributes:
        kind: What reads it; see `targets.TARGETS`.
        name: Of the seed.
        files: What the input's folder holds.
        path: What is read, below that folder; empty for the folder itself.
        size: Bytes of the files with compressed parts inflated.
    """

    kind: str
    name: str
    files: Files = field(repr=False)
    path: str
    size: int


def make_seeds() -> list[Seed]:
    """All seeds, the same ones every time."""
    out = []
    for make in (_nifti, _nrrd, _metaimage, _dicom, _points, _trajectory, _transforms):
        with tempfile.TemporaryDirectory() as folder:
            for kind, path, names in make(Path(folder)):
                out.append(_gather(kind, Path(folder), path, names))
    out += [*_bundles(), *_manifests(), *_stores()]
    return out


def inflated(content: bytes) -> bytes | None:
    """What a gzip file holds; None if it is none."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else None


def _gather(kind: str, folder: Path, path: str, names: list[str]) -> Seed:
    # pynrrd notes the time.
    dated = re.compile(rb"# on [^\n]*\n")
    files: Files = {name: dated.sub(b"", (folder / name).read_bytes()) for name in names}
    return _seed(kind, path or names[0].split("/")[0], files, path)


def _seed(kind: str, name: str, files: Files, path: str) -> Seed:
    size = sum(
        len(inflated(content) or content)
        for content in files.values()
        if isinstance(content, bytes)
    )
    return Seed(kind, name, files, path, size)


def _voxels(dtype: type[np.generic] = np.int16, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 120, shape or SHAPE).astype(dtype)


_Made = Iterator[tuple[str, str, list[str]]]


def _nifti(folder: Path) -> _Made:
    affine = np.array([[-2.0, 0.1, 0, 9], [0.1, 2, 0, -8], [0, 0, 3, 5], [0, 0, 0, 1]])
    images = {
        "int16.nii": nib.Nifti1Image(_voxels(), affine),
        "float32.nii.gz": nib.Nifti1Image(_voxels(np.float32), affine),
        "uint8.nii.gz": nib.Nifti1Image(_voxels(np.uint8), affine),
        "channels.nii": nib.Nifti1Image(_voxels(np.int16, *SHAPE, 2), affine),
        "second.nii": nib.Nifti2Image(_voxels(), affine),
    }
    for name, image in images.items():
        if name == "second.nii":
            image.set_qform(np.diag([2.0, 2, 3, 1]), code=1)
            image.set_sform(affine, code=2)
        if name == "int16.nii":
            image.set_qform(np.diag([2.0, 2, 3, 1]), code=1)
            image.header.set_slope_inter(0.5, 3)
        nib.save(image, folder / name)
        yield "scan", name, [name]


def _nrrd(folder: Path) -> _Made:
    header = {"space": "left-posterior-superior", "space origin": [1.0, 2, 3]}
    header["space directions"] = np.diag([3.0, 4, 5])
    for name, encoding, more in (
        ("raw.nrrd", "raw", {}),
        ("gzip.nrrd", "gzip", {}),
        ("ascii.nrrd", "ascii", {"space": "RAS"}),
        ("bzip2.nrrd", "bzip2", {}),
    ):
        nrrd.write(str(folder / name), _voxels(), {**header, **more, "encoding": encoding})
        yield "scan", name, [name]
    channels = {**header, "space directions": np.vstack([np.full(3, np.nan), np.eye(3)])}
    nrrd.write(str(folder / "channels.nrrd"), _voxels(np.uint8, 2, *SHAPE), channels)
    yield "scan", "channels.nrrd", ["channels.nrrd"]
    units = {"space": "RAS", "spacings": [3.0, 4, 5], "axis mins": [1.0, 2, 3]}
    units["units"] = ["cm", "cm", "cm"]
    nrrd.write(str(folder / "units.nrrd"), _voxels(), {**units, "centers": "cell node cell"})
    yield "scan", "units.nrrd", ["units.nrrd"]
    layers = {**channels, "kinds": ["list", "domain", "domain", "domain"]}
    layers |= {"Segment0_Name": "a", "Segment0_LabelValue": "1", "Segment0_Layer": "1"}
    nrrd.write(str(folder / "two.seg.nrrd"), _voxels(np.uint8, 2, *SHAPE), layers)
    yield "scan", "two.seg.nrrd", ["two.seg.nrrd"]
    yield from _in_parts(folder, "parts.nhdr", "data file: part%d.raw 0 3 1")
    yield from _in_parts(folder, "listed.nhdr", "data file: LIST 2", listed=True)
    for name, encoding in (("apart.nhdr", "raw"), ("packed.nhdr", "gzip")):
        nrrd.write(
            str(folder / name),
            _voxels(),
            {**header, "encoding": encoding},
            detached_header=True,
            relative_data_path=True,
        )
        stem = name.removesuffix(".nhdr")
        data = next(p.name for p in folder.iterdir() if p.name.startswith(stem) and p.name != name)
        yield "scan", name, [name, data]


def _in_parts(folder: Path, name: str, field: str, *, listed: bool = False) -> _Made:
    """Headers of two formats whose voxels lie in four files."""
    parts = np.array_split(_voxels().ravel(order="F"), 4)
    names = [f"part{number}.raw" for number in range(4)]
    for part, voxels in zip(names, parts, strict=True):
        (folder / part).write_bytes(voxels.astype("<i2").tobytes())
    sizes = " ".join(map(str, SHAPE))
    if name.endswith(".nhdr"):
        lines = ["NRRD0005", "type: short", "dimension: 3", f"sizes: {sizes}", "encoding: raw"]
        lines += ["endian: little", "space: LPS", "space directions: (3,0,0) (0,4,0) (0,0,5)"]
    else:
        lines = ["NDims = 3", f"DimSize = {sizes}", "ElementSpacing = 3 4 5", "DistanceUnits = mm"]
        lines += ["AnatomicalOrientation = RAI", "ElementType = MET_SHORT"]
    lines += [field, *(names if listed else ())]
    (folder / name).write_text("\n".join(lines) + "\n")
    yield "scan", name, [name, *names]


def _metaimage(folder: Path) -> _Made:
    image = sitk.GetImageFromArray(_voxels())
    image.SetSpacing((3, 4, 5))
    image.SetOrigin((4, -5, 6))
    vector = sitk.GetImageFromArray(_voxels(np.float32, *SHAPE, 2), isVector=True)
    for name, what, packed in (
        ("plain.mha", image, False),
        ("packed.mha", image, True),
        ("vector.mha", vector, False),
        ("apart.mhd", image, False),
        ("apart-packed.mhd", image, True),
    ):
        sitk.WriteImage(what, str(folder / name), useCompression=packed)
        names = [name]
        if name.endswith(".mhd"):
            names.append(name.replace(".mhd", ".zraw" if packed else ".raw"))
        yield "scan", name, names

    yield from _in_parts(folder, "parts.mhd", "ElementDataFile = part%d.raw 0 3 1")
    yield from _in_parts(folder, "listed.mhd", "ElementDataFile = LIST", listed=True)


def dicom_slice(number: int, *, syntax: str = ExplicitVRLittleEndian) -> Dataset:
    """One slice of a small CT series."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.826.0.1.{number + 1}"
    meta.TransferSyntaxUID = (
        ExplicitVRLittleEndian if syntax in (RLELossless, JPEGLosslessSV1) else syntax
    )
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = (
        "1.2.840.10008.5.1.4.1.1.2",
        f"1.2.826.0.1.{number + 1}",
    )
    header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.826.0.2", "1.2.826.0.3"
    header.FrameOfReferenceUID = "1.2.826.0.4"
    header.Modality, header.SeriesDescription, header.SeriesNumber = "CT", "Fuzz", 4
    header.PatientName, header.PatientID = "Fuzz^Anna", "F-1"
    header.InstanceNumber = number + 1
    header.ImagePositionPatient = [1.0, 2.0, 5.0 * number]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.PixelSpacing, header.SliceThickness = [3.5, 4.5], 5
    header.Rows, header.Columns = SHAPE[1], SHAPE[0]
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
    header.PixelRepresentation, header.RescaleSlope, header.RescaleIntercept = 1, 1, -1024
    header.PixelData = (_voxels()[:, :, number].T.astype("<i2") + 10 * number).tobytes()
    if syntax == RLELossless:
        header.compress(RLELossless, generate_instance_uid=False)
    if syntax == JPEGLosslessSV1:
        header.PixelData, header["PixelData"].VR = encapsulate([_jpeg(header.PixelData)]), "OB"
        header["PixelData"].is_undefined_length = True
        meta.TransferSyntaxUID = JPEGLosslessSV1
    return header


def _jpeg(pixels: bytes) -> bytes:
    """A slice as GDCM compresses it, to be decoded by GDCM: pydicom alone has no decoder."""
    array = np.frombuffer(pixels, "<i2").reshape(1, SHAPE[1], SHAPE[0])
    writer = sitk.ImageFileWriter()
    with tempfile.TemporaryDirectory() as folder:
        writer.SetFileName(f"{folder}/slice.dcm")
        writer.SetImageIO("GDCMImageIO")
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.Execute(sitk.GetImageFromArray(array))
        dataset = pydicom.dcmread(f"{folder}/slice.dcm")
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _bytes_of(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _dicom(folder: Path) -> _Made:
    for name, syntax in (
        ("series", ExplicitVRLittleEndian),
        ("implicit", ImplicitVRLittleEndian),
        ("packed", RLELossless),
        ("jpeg", JPEGLosslessSV1),
        ("deflated", DeflatedExplicitVRLittleEndian),
    ):
        (folder / name).mkdir()
        names = [f"{name}/{n}.dcm" for n in range(4)]
        for number, file in enumerate(names):
            (folder / file).write_bytes(_bytes_of(dicom_slice(number, syntax=syntax)))
        yield "dicom", "", names
    with zipfile.ZipFile(folder / "series.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(4):
            archive.writestr(zipfile.ZipInfo(f"deep/{number}.dcm"), _bytes_of(dicom_slice(number)))
    yield "scan", "series.zip", ["series.zip"]
    (folder / "frames.dcm").write_bytes(_bytes_of(_multi_frame()))
    yield "scan", "frames.dcm", ["frames.dcm"]


def _multi_frame() -> Dataset:
    """An enhanced CT of four frames."""
    header = dicom_slice(0)
    uid = "1.2.840.10008.5.1.4.1.1.2.1"
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = uid
    frames = []
    for number in range(4):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [1.0, 2.0, 5.0 * number]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness = [3.5, 4.5], 5
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = frames
    header.NumberOfFrames = 4
    header.PixelData = _voxels()[:, :, :4].transpose(2, 1, 0).astype("<i2").tobytes()
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(header, tag)
    return header


def _points(folder: Path) -> _Made:
    points = {"AC": (1.5, 2, 3), "PC, posterior": (-4, 5, 6e-3), "Genu of CC": (7, 8, 9)}
    write_markups(folder / "points.mrk.json", points, descriptions={"AC": "see atlas"})
    write_curves(folder / "curves.mrk.json", {"a": np.eye(3), "b": np.eye(3) * 2})
    write_points_csv(
        folder / "points.csv",
        [dict(zip(("name", "x", "y", "z"), (n, *p), strict=True)) for n, p in points.items()],
    )
    (folder / "points.tsv").write_text("label\tr\ta\ts\nAC\t1\t2\t3\nPC\t4\t5\t6\n")
    (folder / "old.fcsv").write_text(
        "# Markups fiducial file version = 4.10\n# CoordinateSystem = 0\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        "f1,1,2,3,0,0,0,1,1,1,0,AC,,\nf2,4,5,6,0,0,0,1,1,1,0,PC,,\n"
    )
    (folder / "seeds.csv").write_text("name,x,y,z\nfg1,1,2,3\nbg1,4,5,6\n")
    for name in ("points.mrk.json", "curves.mrk.json", "points.csv", "points.tsv", "old.fcsv"):
        yield "points", name, [name]
    yield "points", "seeds.csv", ["seeds.csv"]


def _trajectory(folder: Path) -> _Made:
    steps = 3
    agents = [
        AgentPath(
            name="AC",
            start=start,
            positions_world=np.arange(3.0 * steps).reshape(steps, 3),
            scales_mm=np.ones(steps),
            actions=np.arange(2 * steps).reshape(steps, 2),
            values=np.array([0.5, np.nan, 1.0]),
            times=np.arange(3.0),
            rewards=np.zeros(steps),
            transforms=np.repeat(np.eye(4)[None], steps, axis=0) if start else None,
            boxes_world=None if start else np.zeros((steps, 2, 3)),
            extras={"speed": np.ones(steps), "memory": np.full((steps, 2, 1), np.nan)},
            value_unit="mm",
            outcome="stopped",
            confidence=0.5,
            answer_world=np.ones(3),
        )
        for start in range(2)
    ]
    write_trajectory(folder / "a.trajectory.json", Trajectory("landmark", tuple(agents), {"s": 1}))
    yield "trajectory", "a.trajectory.json", ["a.trajectory.json"]
    (folder / "first.trajectory.json").write_bytes(FIRST_EDITION.read_bytes())
    yield "trajectory", "first.trajectory.json", ["first.trajectory.json"]


def _transforms(folder: Path) -> _Made:
    matrix = np.eye(4)
    turn = np.radians(20)
    matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    matrix[:3, 3] = 1, 2, 3
    scan = grid_scan()
    for name, form, kind in (
        ("rigid.tfm", "itk", "rigid"),
        ("affine.tfm", "itk", "affine"),
        ("matrix.txt", "matrix", "affine"),
        ("ants.mat", "ants", "affine"),
        ("free.lta", "lta", "affine"),
        ("fsl.mat", "fsl", "affine"),
        ("rigid.h5", "itk", "rigid"),
    ):
        write_transform(folder / name, matrix, form=form, kind=kind, fixed=scan, moving=scan)
        yield "transform", name, [name]


def grid_scan() -> MetaTensor:
    """A scan that FSL's transforms are read with."""
    return MetaTensor(torch.zeros(1, *SHAPE), affine=torch.eye(4, dtype=torch.float64))


def _bundles() -> list[Seed]:
    """A model of every task: tiny landmark agents; of the others what ships, cut to its head."""
    from medrl.bundles import find, save
    from medrl.landmark.model import LandmarkModel, ModelSettings

    torch.manual_seed(0)
    settings = ModelSettings(
        spacings=(2.0, 4.0), window=9, channels=(2, 4), features=4, max_steps=2
    )
    names = ("AC", "PC")
    networks = tuple(settings.build_network(len(names)).eval() for _ in settings.spacings)
    model = LandmarkModel(names, settings, networks)
    manifest = {
        "format": "medrl-bundle",
        "version": 1,
        "name": "random",
        "task": "landmark",
        "landmarks": list(names),
        "settings": asdict(settings),
        "card": {"title": "Random weights", "licence": "CC0", "training_data": ["a", {"b": 1}]},
        "metrics": {"test": {"mean_mm": 99.5}},
        "versions": {"medrl": "0"},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = save(Path(folder) / "model", model.tensors(), manifest, licence="None.\n")
        files: Files = {f"model/{p.name}": p.read_bytes() for p in sorted(path.iterdir())}
    seeds = [_seed("bundle", "landmark", files, "model")]
    for name in ("hippocampus-t1", "rigid-head"):
        folder = find(name)
        content = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        content["metrics"] = {}
        shipped: Files = {
            "model/model.json": json.dumps(content, indent=1).encode(),
            "model/model.safetensors": (folder / "model.safetensors").read_bytes(),
        }
        seeds.append(_seed("bundle", name, shipped, "model"))
    return seeds


def rehash(files: Files) -> Files:
    """A model's files with the checksum that its weights have now."""
    out = dict(files)
    weights = out.get("model/model.safetensors")
    try:
        content = json.loads(out["model/model.json"])
        content["weights"]["sha256"] = hashlib.sha256(weights).hexdigest()
    except (KeyError, TypeError, ValueError, RecursionError):
        return out
    out["model/model.json"] = json.dumps(content).encode()
    return out


def _manifests() -> list[Seed]:
    """Lists of scans for `medrl batch`, and a folder of them."""
    scans: Files = {"a.nii.gz": b"x", "b.nii": b"x", "sub/c.nrrd": b"x", "s.mrk.json": b"{}"}
    rows = (
        "name,scan,seeds,fixed,moving\none,a.nii.gz,s.mrk.json,a.nii.gz,b.nii\n"
        ",b.nii,fg:1,b.nii,a.nii.gz\n"
    )
    entries = [
        {"name": "one", "image": "a.nii.gz", "fixed": "a.nii.gz", "moving": "b.nii"},
        {"scan": "sub/c.nrrd", "series": "1.2.3", "fixed": "b.nii", "moving": "sub/c.nrrd"},
    ]
    texts = {
        "list.csv": rows,
        "list.tsv": rows.replace(",", "\t"),
        "list.json": json.dumps(entries),
        "datalist.json": json.dumps({"training": entries, "test": [entries[0]]}),
    }
    seeds = [
        _seed("manifest", name, {name: text.encode(), **scans}, name)
        for name, text in texts.items()
    ]
    series: Files = {f"deep/er/{n}.dcm": _bytes_of(dicom_slice(n)) for n in range(2)}
    return [*seeds, _seed("manifest", "folder", {**scans, **series}, "")]


def _stores() -> list[Seed]:
    """An output folder that holds results of a batch."""
    case = {"name": "one", "sources": {"scan": {"path": "a.nii", "series": None}}, "options": {}}
    record = {"case": case, "files": [], "rows": [], "remarks": [], "seconds": {"read": 1.0}}
    files: Files = {
        "one/case.json": json.dumps(record).encode(),
        ".medrl/task.json": json.dumps({"verb": "detect", "model": "x"}).encode(),
        ".medrl/failed/0a.json": json.dumps({"case": case, "reason": "none"}).encode(),
    }
    return [_seed("store", "results", files, "")]
