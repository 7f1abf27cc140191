import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medrl.files import (
    absence,
    atomic_path,
    distinct_stems,
    joint_stem,
    one_line,
    place_of,
    printable,
    result_name,
    stem_of,
)


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


def test_only_what_dots_lead_to_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "store" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("store/deep")
    (tmp_path / "store" / "a.nii").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    assert place_of("link/x.nii") == tmp_path / "link" / "x.nii"
    assert place_of("./store//a.nii") == place_of("store/deep/../a.nii") == tmp_path / "store/a.nii"
    # As the system does it: up from where the link leads to.
    assert place_of("link/../a.nii") == tmp_path / "store" / "a.nii"
    assert os.path.samefile(place_of("link/.."), "link/..")


# Names are bytes to the system: any but those of / and nothing.
NAMES = st.binary(min_size=1, max_size=300).filter(lambda name: not {0, ord("/")} & set(name))


@given(NAMES)
def test_results_have_names_that_any_file_system_takes(name: bytes) -> None:
    text = os.fsdecode(name)
    made = result_name(text)
    assert len(made.encode()) <= 200
    assert not set(made) & set('\\:*?"<>|\n\t\0')
    assert result_name(made) == made
    assert printable(text).encode()
    assert len(one_line(text).splitlines()) <= 1


def test_names_that_can_be_results_names_stay_as_they_are() -> None:
    for name in ("T1[bold]", "-dash", "\U0001f600", "e\u0301", "%41", "a b'c", "x" * 190):
        assert result_name(name) == name == printable(name) == one_line(name)
    assert result_name("Sch\udce4del") == "Sch%e4del"
    assert printable("Sch\udce4del") == "Sch\\xe4del"
    assert printable("\ud800") == "\\ud800"
    # Bytes of which each alone is no letter, as Python gives them in the C locale.
    assert printable(b"\xc3\xa4".decode("ascii", "surrogateescape")) == "\xe4"


def test_results_of_long_names_differ_and_can_be_written(tmp_path: Path) -> None:
    long = [tmp_path / ("\u982d" * 80 + f"{number}.nii.gz") for number in range(3)]
    assert len(os.fsencode(long[0].name)) > 240
    stems = [*distinct_stems(long), joint_stem(long[:2])]
    assert len(set(stems)) == 4
    for stem in stems:
        (tmp_path / f"{stem}.before-after.png").touch()


def test_names_that_some_systems_take_for_one_are_told_apart() -> None:
    scans = [Path("/in/e\u0301.nii"), Path("/in/\xe9.nii"), Path("/in/\xc9.nii")]
    keys = {name.replace("e\u0301", "\xe9").casefold() for name in distinct_stems(scans)}
    assert len(keys) == 3


def test_what_only_stands_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").write_bytes(b"x" * 400)
    assert absence(tmp_path / "scan.nii") is None
    assert absence(tmp_path) is None
    assert absence(tmp_path / "none.nii") == "no such file or folder"
    (tmp_path / "link.nii").symlink_to(".git/annex/objects/aa/MD5E-s3--0.nii")
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "unlocked.nii").write_text("/annex/objects/MD5E-s3--0.nii\n")
    (tmp_path / "windows.nii").write_text("../.git/annex/objects/aa/bb/MD5E-s3--0/MD5E-s3--0.nii")
    (tmp_path / "lfs.nii").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for name in ("link", "loop", "unlocked", "windows", "lfs"):
        assert "git annex get" in str(absence(tmp_path / f"{name}.nii"))
