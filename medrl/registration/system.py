"""Registration agents as the rest of the house knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from medrl.systems import Artifact, Progress, System
from medrl.volume.transform_forms import Form

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.evaluation import Evaluation
    from medrl.registration.register import Registrar, Registration
    from medrl.results.findings import Finding
    from medrl.trajectory import Watch

#: Of the report, what goes into the table of a batch.
_COLUMNS = (
    *("fixed", "moving", "transform", "refined", "trusted", "confidence", "predicted_error_mm"),
    *("turn_deg", "shift_mm", "overlap", "nmi_before", "nmi_after"),
)


@dataclass(frozen=True)
class RegisterOptions:
    """What may be chosen."""

    transform: Literal["rigid", "similarity", "affine"] = "rigid"
    """What may change: place and orientation; size too; or shape as well."""

    refine: bool = True
    """Refine the agent's answer by mutual information (SimpleITK)."""

    also: tuple[Literal["ants", "fsl", "lta"], ...] = ()
    """Write the transform for these as well: .ants.mat, .fsl.mat, .lta (FreeSurfer)."""


@dataclass(frozen=True)
class Given:
    """What may come with a pair of scans."""

    init: Path | None = None
    """Transform to start from: of ITK, ANTs, FSL, FreeSurfer, AFNI, MINC, elastix, or a 4x4 world
    matrix in text; what it was taken for is said."""

    init_form: Form | None = None
    """What the file of the transform to start from is, where its content is not to be asked."""

    fixed_mask: Path | None = None
    """Mask of what counts in the fixed scan, on any grid in the same world."""

    moving_mask: Path | None = None
    """Mask of what counts in the moving scan."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What may be chosen in an evaluation."""

    bands: tuple[Literal["10", "30", "60", "any"], ...] = ("10", "30", "60", "any")
    """How far copies are turned about each axis, in degrees, and shifted along it, in mm; any is
    any orientation, shifted by up to 60 mm."""

    seed: int = 0
    """Of poses and contrasts."""


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two scans, and what is known of how they fit together."""

    fixed: MetaTensor
    moving: MetaTensor
    masks: dict[str, MetaTensor | None]
    initial: Any
    told: tuple[str, ...]


class RegistrationSystem(System):
    """Aligns a moving scan with a fixed one."""

    name = "registration"
    verb = "register"
    summary = "align a moving scan with a fixed one"
    description = """Align a moving scan with a fixed one: find the transform between them.

Writes the transform for ITK and 3D Slicer (.tfm) and as a 4x4 world matrix (.matrix.txt), the
moving scan on the fixed one's grid (.nii.gz), every transform that the agent passed in
.trajectory.json, a report with the confidence (.report.json) and two pictures, before-after and
checkerboard (.png)."""
    default_model = "rigid-head"
    roles = ("fixed", "moving")
    options = RegisterOptions
    given = Given
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        **{
            ending: Artifact(
                "xfm",
                new,
                "Brings the image onto the other one: points of that one's world go to the image's",
            )
            for ending, new in (
                (".tfm", ".tfm"),
                (".matrix.txt", ".txt"),
                (".report.json", ".json"),
                (".before-after.png", ".png"),
                (".checkerboard.png", ".png"),
                (".ants.mat", ".ants.mat"),
                (".fsl.mat", ".fsl.mat"),
                (".lta", ".lta"),
            )
        },
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The path of every agent"),
        ".nii.gz": Artifact(None, ".nii.gz", "The image on the grid of the other one"),
    }
    figures = ("confidence", "predicted_error_mm", "turn_deg", "shift_mm", "nmi_after")
    recipe = "medrl.registration.train"
    evaluate_options = EvaluateOptions

    def load(self, bundle: Path, *, device: str = "cpu") -> Registrar:
        """The registrar of a trained model."""
        from medrl.registration.register import Registrar

        return Registrar.load(str(bundle), device=device)

    def read(
        self,
        predictor: Registrar,
        scans: Mapping[str, MetaTensor],
        given: Given,
        options: RegisterOptions,
    ) -> _Pair:
        """Read masks and the transform to start from."""
        from medrl.volume.transform_files import open_transform
        from medrl.volume.transform_forms import FORMS

        fixed, moving = scans["fixed"], scans["moving"]
        masks = {"fixed_mask": given.fixed_mask, "moving_mask": given.moving_mask}
        initial, told = None, []
        if given.init is not None:
            start = open_transform(given.init, form=given.init_form, fixed=fixed, moving=moving)
            initial = start.matrix_world
            told = [f"started from {FORMS[start.form]}"]
            told += [f"the transform to start from: {remark}" for remark in start.remarks]
        read = {name: None if path is None else _read_mask(path) for name, path in masks.items()}
        return _Pair(fixed, moving, read, initial, tuple(told))

    def predict(
        self,
        predictor: Registrar,
        data: Sequence[_Pair],
        options: RegisterOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Registration]:
        """Register pairs, one after the other."""
        results = []
        for pair in data:
            found = predictor.register(
                pair.fixed,
                pair.moving,
                transform=options.transform,
                refine=options.refine,
                initial_world=pair.initial,
                progress=progress,
                watch=watch,
                **pair.masks,
            )
            results.append(replace(found, warnings=(*pair.told, *found.warnings)))
        return results

    def save(
        self,
        result: Registration,
        folder: Path,
        stem: str,
        options: RegisterOptions,
        **how: Any,
    ) -> dict[str, Path]:
        """Write a registration, also for other programs."""
        return result.save(folder, stem, also=options.also, picture=how.get("picture", True))

    def doubt(self, result: Registration) -> str | None:
        """Whether a registration is to be trusted."""
        return result.doubt

    def rows(self, result: Registration) -> list[dict[str, Any]]:
        """The figures of a pair, and its transform."""
        matrix, report = result.transform_world, result.report()
        row = {key: report[key] for key in _COLUMNS}
        row |= {f"m{r}{c}": float(matrix[r, c]) for r in range(3) for c in range(4)}
        return [row]

    def findings(self, result: Registration) -> list[Finding]:
        """How the moving scan is to be moved onto the fixed one."""
        from medrl.results.findings import Motion

        return [Motion("moving", result.transform_world)]

    def report(self, result: Registration) -> dict[str, Any]:
        """What the report on disk says."""
        return result.report()

    def tables(self, results: Mapping[str, Registration]) -> list[Any]:
        """The figures of a pair."""
        return [_table(result.report()) for result in results.values()]

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What registration agents find."""
        return "the transform between two scans"

    def evaluate(
        self,
        predictor: Registrar,
        *,
        data: Path,
        split: str,
        options: EvaluateOptions,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Evaluation:
        """Errors on posed copies of scans, next to what is simpler."""
        from medrl.data.datalist import samples_of
        from medrl.evaluation import provenance
        from medrl.registration.data import read_datalist
        from medrl.registration.evaluate import evaluate

        scans = samples_of(read_datalist(data), split, data)
        bands = tuple(dict.fromkeys(options.bands))
        found = evaluate(predictor, scans, bands=bands, seed=options.seed, progress=progress)
        known = provenance(predictor.manifest, data=str(data), split=split, seed=options.seed)
        return replace(found, summary={**known, **found.summary})

    def metrics(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Figures by band, and what the confidence is worth."""
        return {key: summary[key] for key in ("scans", "bands", "confidence")}


def _read_mask(path: Path) -> MetaTensor:
    """Read a mask, which may be blank."""
    from medrl.volume.read import read

    return read(path, allow_constant=True)


def _table(report: Mapping[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    title = f"{report['moving']} to {report['fixed']} ({report['seconds']:.1f} s)"
    table = Table(title=Text(title), title_justify="left", box=None, pad_edge=False)
    table.add_column("transform")
    for column in ("turned deg", "shifted mm", "overlap", "NMI before", "NMI after"):
        table.add_column(column, justify="right")
    for column in ("confidence", "predicted error mm"):
        table.add_column(column, justify="right")
    table.add_column("trusted")
    trusted = report["trusted"]
    two = ("overlap", "nmi_before", "nmi_after", "confidence", "predicted_error_mm")
    table.add_row(
        report["transform"] + (", refined" if report["refined"] else ""),
        *(_number(report[key], 1) for key in ("turn_deg", "shift_mm")),
        *(_number(report[key], 2) for key in two),
        Text("yes" if trusted else "NO", style="green" if trusted else "bold red"),
    )
    return table


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
