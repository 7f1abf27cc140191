"""Files of a result: all of them, or none."""

from pathlib import Path

import pydicom
import pytest

from medrl.dicom import Drafted
from medrl.errors import MedrlError
from medrl.results.artifacts import dicom_files, trajectory_file, write_files
from medrl.trajectory import Trajectory, read_trajectory


def text(words: str):
    return lambda path: path.write_text(words)


def test_files_are_called_after_the_stem(tmp_path: Path) -> None:
    record = trajectory_file(Trajectory("toy", ()))
    files = {"one": (".txt", text("1")), "two": (".b.csv", text("2")), "trajectory": record}
    paths = write_files(tmp_path, "head", files)
    assert paths == {
        "one": tmp_path / "head.txt",
        "two": tmp_path / "head.b.csv",
        "trajectory": tmp_path / "head.trajectory.json",
    }
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in paths.values()}
    assert paths["two"].read_text() == "2"
    assert read_trajectory(paths["trajectory"]).task == "toy"


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "head.txt").write_text("of an earlier run")

    def broken(path: Path) -> None:
        path.write_text("half")
        raise MedrlError("no")

    with pytest.raises(MedrlError, match="no"):
        write_files(tmp_path, "head", {"one": (".txt", text("1")), "two": (".csv", broken)})
    assert [path.name for path in tmp_path.iterdir()] == ["head.txt"]
    assert (tmp_path / "head.txt").read_text() == "of an earlier run"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MedrlError, match="nowhere"):
        write_files(tmp_path / "nowhere", "head", {"one": (".txt", text("1"))})


def test_dicom_only_where_there_is_some() -> None:
    assert dicom_files("report", ".sr.dcm", None) == {}
    assert dicom_files("report", ".sr.dcm", Drafted()) == {}
    some = dicom_files("report", ".sr.dcm", Drafted(pydicom.Dataset()))
    assert [(kind, ending) for kind, (ending, _) in some.items()] == [("report", ".sr.dcm")]
