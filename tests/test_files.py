import stat
from pathlib import Path

import pytest

from medrl.files import atomic_path, distinct_stems, stem_of


def test_a_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "scan.nii.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "scan.json"
    target.write_text("old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise ValueError("full disk")

    with pytest.raises(ValueError, match="full disk"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_written_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    with atomic_path(tmp_path / "atomic") as temporary:
        temporary.write_text("")
    assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_link_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # As DataLad keeps data sets: the content is called by its checksum.
    (tmp_path / "MD5E-s3--abc.nii.gz").write_text("one")
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).symlink_to(tmp_path / "MD5E-s3--abc.nii.gz")
    links = [tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"]
    assert [stem_of(link) for link in links] == distinct_stems(links) == ["a", "b"]
    monkeypatch.chdir(tmp_path)
    assert stem_of(Path()) == stem_of(Path("x/..")) == tmp_path.name
