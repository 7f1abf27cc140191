"""Whatever a scan is called, its results stay below the output folder."""

import os
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from medrl.batch.cases import Case, Source, name_of
from medrl.errors import MedrlError

ROOT = Path("/data/in")
OUT = "/data/out"
PARTS = st.lists(
    st.one_of(
        st.sampled_from(["..", ".", "...", "a", "\\", "C:", "~", "%2e%2e", "a/../..", "\n", ""]),
        st.text(max_size=8),
    ),
    min_size=1,
    max_size=5,
)


def below(name: str) -> bool:
    """Whether a name's folder is below the output folder, and is not that folder itself."""
    return os.path.normpath(f"{OUT}/{name}").startswith(f"{OUT}/")


@given(parts=PARTS, leading=st.sampled_from(["", "/", "//", "../", "C:\\"]))
def test_a_case_takes_no_name_that_leads_elsewhere(parts: list[str], leading: str) -> None:
    name = leading + "/".join(parts)
    try:
        case = Case(name, {"scan": Source(ROOT / "a.nii")})
    except MedrlError:
        return
    assert below(case.name)
    assert "/" not in case.stem
    assert case.stem.strip(".")
    assert Case.of_plain(case.plain()) == case


@given(parts=PARTS, ending=st.sampled_from([".nii.gz", ".nrrd", ".zip", ""]))
def test_what_is_found_has_a_name_that_a_case_takes(parts: list[str], ending: str) -> None:
    path = ROOT.joinpath(*[part.strip("/") for part in parts if "\0" not in part], f"scan{ending}")
    assume(os.path.normpath(path) != str(ROOT))
    name = name_of(path, ROOT)
    assert below(Case(name, {"scan": Source(path)}).name)
