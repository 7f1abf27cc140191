"""Cutting agents as the rest of the house knows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from medrl.errors import MedrlError
from medrl.files import is_film
from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.cutting.answer import Carried
    from medrl.cutting.carry import Carrier
    from medrl.cutting.outlines import Outlines
    from medrl.evaluation import Evaluation
    from medrl.results.findings import Finding
    from medrl.trajectory import Watch
    from medrl.volume.film import Film

_SCANS, _FILMS = "carry-scans", "carry-films"


@dataclass(frozen=True)
class CarryOptions:
    """What may be chosen."""

    axis: int | None = None
    """Axis of the array (0, 1, 2) that slices follow one another along; left out, the one along
    which least is outlined."""


@dataclass(frozen=True)
class Given:
    """What comes with a scan."""

    outline: tuple[Path, ...] = ()
    """Of a scan: a label map on its grid in which the outlined slices are filled. Of a film:
    pictures called as its frames, or a folder of such; may be repeated."""

    at: str | None = None
    """Of a film with a single outline: the name or number of the frame that it belongs to."""


class _Case(NamedTuple):
    data: MetaTensor | Film
    outlines: Outlines


class CuttingSystem(System):
    """Carries outlines through slices and frames."""

    name = "cutting"
    verb = "carry"
    summary = "carry an outline through the slices of a scan, or the frames of a film"
    description = """Carry an outline through the slices of a scan, or the frames of a film.

SCAN is a scan, or a film: a folder of pictures, a video, a scan of four dimensions. Agents carry
what is outlined on one or several slices or frames through all others, in both directions, and say
where the object ends. Writes masks in the scan's own grid (.seg.nii.gz), the overlap that is
expected in every slice or frame (.csv), the agents' boxes (.trajectory.json), a picture (.png), a
film of the outlines (.webp), and of a DICOM series a DICOM SEG (.seg.dcm). In a batch, the outline
of a.nii.gz is read from a.outline.nii.gz beside it, or named in the column `outline`."""
    options = CarryOptions
    given = Given
    films = True
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        ".seg.nii.gz": Artifact("dseg", ".nii.gz", "Objects carried from outlined slices"),
        ".csv": Artifact(
            "dseg",
            ".tsv",
            "How sure the masks are in every slice",
            {
                "object": {"Description": "What was outlined"},
                "label": {"Description": "Its number in the masks"},
                "picture": {"Description": "Slice along the axis, or frame, from 0"},
                "name": {"Description": "Name of the frame"},
                "area": {"Description": "Voxels"},
                "expected_overlap": {"Description": "With the truth, from 0 to 1"},
                "outlined": {"Description": "1 if a person outlined it"},
            },
        ),
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The boxes of every agent"),
        ".png": Artifact("dseg", ".png", "Slices from end to end"),
        ".webp": Artifact("dseg", ".webp", "A film of the outlines"),
    }
    group = "object"
    figures = ("expected_overlap", "pictures")
    recipe = "medrl.cutting.train"

    # Using a model ------------------------------------------------------------------------------

    def check_given(self, given: Given, scans: Collection[str]) -> None:
        """Refuse a case without an outline."""
        if not given.outline:
            raise MedrlError(
                "comes with no outline: fill the object on a slice or frame and name it by "
                "--outline, put NAME.outline.nii.gz beside the scan, or give a manifest with a "
                "column outline"
            )
        for path in given.outline:
            if not path.exists():
                raise MedrlError(f"{path}: no such file or folder")

    def choose_model(self, given: Given, scans: Collection[str]) -> str:
        """The model for films where the scan is one of pictures, else that for scans."""
        path = scans.get("scan") if isinstance(scans, Mapping) else None
        if path is not None and Path(path).exists() and is_film(path):
            return _FILMS
        return _SCANS

    def load(self, bundle: Path, *, device: str = "cpu") -> Carrier:
        """The carrier of a trained model."""
        from medrl.cutting.carry import Carrier

        return Carrier.load(bundle, device=device)

    def check(self, predictor: Carrier, options: CarryOptions) -> None:
        """Refuse an axis that is none."""
        if options.axis is not None and options.axis not in (0, 1, 2):
            raise MedrlError("--axis is 0, 1 or 2")

    def read(
        self, predictor: Carrier, scans: Mapping[str, Any], given: Given, options: CarryOptions
    ) -> _Case:
        """The scan or film, and what is outlined."""
        from medrl.cutting.outlines import read_outlines
        from medrl.volume.film import Film, film_of

        data = scans["scan"]
        if not isinstance(data, Film) and data.shape[0] > 1:
            data = film_of(data)
        return _Case(data, read_outlines(given.outline, data, at=given.at))

    def predict(
        self,
        predictor: Carrier,
        data: Sequence[_Case],
        options: CarryOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Carried]:
        """Carry outlines, one scan after the other."""
        return [
            predictor.carry(
                case.data, case.outlines, axis=options.axis, progress=progress, watch=watch
            )
            for case in data
        ]

    # What came of it ----------------------------------------------------------------------------

    def rows(self, result: Carried) -> list[dict[str, Any]]:
        """A row for each object."""
        from medrl.cutting.results import object_rows

        return object_rows(result)

    def report(self, result: Carried) -> dict[str, Any]:
        """The objects, and every slice or frame of them."""
        from medrl.cutting.results import picture_rows

        return {"axis": result.axis, "objects": self.rows(result), "pictures": picture_rows(result)}

    def findings(self, result: Carried) -> list[Finding]:
        """The objects as labels."""
        from medrl.results.findings import Mask

        return [Mask(result.labels, {thing.value: thing.name for thing in result.things})]

    def sidecar(self, scan: Path) -> Mapping[str, str]:
        """The outline beside a scan."""
        from medrl.files import without_ending

        own = scan.with_name(f"{without_ending(scan.name)}.outline.nii.gz")
        return {"outline": str(own)} if own.is_file() else {}

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """It carries whatever is outlined."""
        return {}

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What a model carries."""
        film = manifest["settings"].get("modality") == "film"
        return f"whatever is outlined, through {'frames' if film else 'slices'}"

    # Learning and measuring ---------------------------------------------------------------------

    def evaluate(
        self,
        predictor: Carrier,
        *,
        data: Path,
        split: str,
        options: Any,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Evaluation:
        """Dice of objects carried from their middle slices, next to demons and copies."""
        from dataclasses import replace

        from medrl.cutting.data import read_datalist
        from medrl.cutting.evaluate import evaluate
        from medrl.data.datalist import samples_of
        from medrl.evaluation import provenance

        samples = samples_of(read_datalist(data), split, data)
        found = evaluate(predictor, samples, progress=progress)
        made_by = provenance(predictor.manifest, data=str(data), split=split)
        return replace(found, summary={**made_by, **found.summary})
