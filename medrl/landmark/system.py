"""Landmark agents as the rest of the house knows them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from medrl.errors import MedrlError
from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    import numpy as np
    from monai.data.meta_tensor import MetaTensor
    from numpy.typing import NDArray
    from rich.table import Table

    from medrl.evaluation import Evaluation
    from medrl.landmark.detect import LandmarkDetector
    from medrl.landmark.detection import Detection
    from medrl.results.findings import Finding
    from medrl.trajectory import Watch

_STATUS_STYLES = {"found": "green", "corrected": "magenta", "absent": "yellow"}


@dataclass(frozen=True)
class DetectOptions:
    """What may be chosen."""

    landmarks: tuple[str, ...] = ()
    """Report only these; all if left out."""


@dataclass(frozen=True)
class Given:
    """What comes with a scan."""

    box: str | None = None
    """Search in this box only: x0,y0,z0,x1,y1,z1 (world millimetres), or a file of boxes
    (.mrk.json, .csv), with :NAME if it holds several."""

    space: Literal["RAS", "LPS"] = "RAS"
    """Space of the coordinates of --box; files state their own."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What may be chosen in an evaluation."""

    atlases: int = 0
    """Training scans to carry over by affine registration as a baseline (7 s a scan and atlas)."""


class _Case(NamedTuple):
    """A scan, and the box (2, 3; RAS mm) to search in; None for all of it."""

    scan: MetaTensor
    box: NDArray[np.float64] | None


class LandmarkSystem(System):
    """Finds anatomical points."""

    name = "landmark"
    verb = "detect"
    summary = "find landmarks in scans"
    description = """Find landmarks in scans.

Writes for each scan a 3D Slicer point list (.mrk.json), a table (.csv; RAS mm), every agent's path
(.trajectory.json) and a picture (.png), and of a DICOM series a DICOM SR (.sr.dcm)."""
    default_model = "brain-t1"
    options = DetectOptions
    given = Given
    several = True
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        ".mrk.json": Artifact(
            "landmarks",
            ".mrk.json",
            "Landmarks found by agents; coordinates are RAS+ mm in the world of the image",
            {
                "name": {"Description": "Of the landmark"},
                **{axis: {"Description": "RAS+ world coordinate", "Units": "mm"} for axis in "xyz"},
                "status": {"Description": "found, corrected, or absent: not in the image"},
                "confidence": {"Description": "From 0 to 1"},
                "note": {"Description": "What the detector has to say of it"},
            },
        ),
        ".csv": Artifact("landmarks", ".tsv", "Landmarks found by agents"),
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The path of every agent"),
        ".png": Artifact("landmarks", ".png", "Landmarks in the image"),
    }
    group = "landmark"
    recipe = "medrl.landmark.train"
    evaluate_options = EvaluateOptions

    # Using a model ------------------------------------------------------------------------------

    def check_given(self, given: Given, scans: Collection[str]) -> None:
        """Refuse what is no box."""
        _box_of(given)

    def load(self, bundle: Path, *, device: str = "cpu") -> LandmarkDetector:
        """The detector of a trained model."""
        from medrl.landmark.detect import LandmarkDetector

        return LandmarkDetector.load(bundle, device=device)

    def check(self, predictor: LandmarkDetector, options: DetectOptions) -> None:
        """Refuse landmarks that a model does not know."""
        predictor.check(options.landmarks)

    def read(
        self,
        predictor: LandmarkDetector,
        scans: Mapping[str, MetaTensor],
        given: Given,
        options: DetectOptions,
    ) -> _Case:
        """The scan and its box."""
        return _Case(scans[self.roles[0]], _box_of(given))

    def predict(
        self,
        predictor: LandmarkDetector,
        data: Sequence[_Case],
        options: DetectOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Detection | MedrlError]:
        """Search scans, at the same time if there are several."""
        wanted = options.landmarks or None
        if len(data) > 1:
            scans, boxes = zip(*data, strict=True)
            return predictor.detect_many(scans, landmarks=wanted, boxes=boxes, batch_size=len(data))
        return [
            predictor.detect(
                case.scan, landmarks=wanted, box=case.box, progress=progress, watch=watch
            )
            for case in data
        ]

    def batch_size(self, device: str) -> int:
        """Agents of several scans share batches on a GPU."""
        return 8 if device.startswith("cuda") else 1

    # What came of it ----------------------------------------------------------------------------

    def rows(self, result: Detection) -> list[dict[str, Any]]:
        """A row for each landmark."""
        from medrl.landmark.results import landmark_rows

        return [
            {"landmark" if key == "name" else key: value for key, value in row.items()}
            for row in landmark_rows(result)
        ]

    def case_figures(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """How many landmarks are not in the scan."""
        return {"absent": sum(row.get("status") == "absent" for row in rows)}

    def report(self, result: Detection) -> dict[str, Any]:
        """The landmarks of a scan."""
        from medrl.landmark.results import landmark_rows

        model = result.trajectory.provenance["model"]
        return {"space": "RAS mm", "model": model, "landmarks": landmark_rows(result)}

    def tables(self, results: Mapping[str, Detection]) -> list[Table]:
        """The landmarks of one scan, or a line for each of several."""
        if len(results) == 1:
            return [_landmark_table(name, detection) for name, detection in results.items()]
        return [_scan_table(results)]

    def findings(self, result: Detection) -> list[Finding]:
        """The landmarks that are in the scan."""
        import numpy as np

        from medrl.results.findings import Points

        there = [lm for lm in result.landmarks if lm.status != "absent"]
        return [
            Points(
                tuple(lm.name for lm in there),
                np.array([lm.position_world for lm in there]).reshape(-1, 3),
                np.array([lm.confidence for lm in there]),
            )
        ]

    # Models -------------------------------------------------------------------------------------

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """The landmarks that a model knows."""
        return {"landmarks": list(manifest["landmarks"])}

    # Learning and measuring ---------------------------------------------------------------------

    def evaluate(
        self,
        predictor: LandmarkDetector,
        *,
        data: Path,
        split: str,
        options: EvaluateOptions,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Evaluation:
        """Errors on scans with points, next to the mean position and affine atlases."""
        from dataclasses import replace

        from medrl.data.datalist import samples_of
        from medrl.evaluation import provenance
        from medrl.landmark.baselines import LandmarkAtlas, MeanPosition
        from medrl.landmark.data import read_datalist
        from medrl.landmark.evaluate import Baseline, evaluate

        samples = read_datalist(data)
        names = predictor.landmark_names
        baselines: list[Baseline] = [MeanPosition(samples["training"], names)]
        if options.atlases:
            spacing = predictor.model.settings.spacings[0]
            baselines.append(
                LandmarkAtlas(samples["training"], names, count=options.atlases, spacing=spacing)
            )
        scans = samples_of(samples, split, data)
        found = evaluate(predictor, scans, baselines=baselines, progress=progress)
        made_by = provenance(predictor.manifest, data=str(data), split=split)
        return replace(found, summary={**made_by, **found.summary})

    def metrics(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Errors of all methods, and those of the agents for each landmark."""
        return {
            "scans": summary["scans"],
            "error_mm": {name: both["all"] for name, both in summary["methods"].items()},
            "mean_error_mm_by_landmark": {
                name: figures["mean"]
                for name, figures in summary["methods"]["agents"]["landmarks"].items()
            },
            "presence": summary["presence"],
            "confidence_auc": summary["confidence"]["auc"],
        }


def _box_of(given: Given) -> NDArray[np.float64] | None:
    """Where to search, if it is said."""
    from medrl.volume.box_files import parse_box

    return None if given.box is None else parse_box(given.box, space=given.space)


def _landmark_table(name: str, detection: Detection) -> Table:
    from rich.table import Table
    from rich.text import Text

    from medrl.landmark.results import landmark_rows

    title = Text(f"{name} ({detection.seconds:.1f} s)")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("landmark", no_wrap=True)
    for axis in ("R", "A", "S"):
        table.add_column(f"{axis} mm", justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("note")
    for row in landmark_rows(detection):
        sure = row["confidence"]
        table.add_row(
            row["name"],
            *("-" if row[axis] is None else f"{row[axis]:.1f}" for axis in "xyz"),
            Text(row["status"], style=_STATUS_STYLES.get(row["status"], "")),
            "-" if sure is None else f"{sure:.2f}",
            row["note"],
        )
    return table


def _scan_table(results: Mapping[str, Detection]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("scan", "found", "corrected", "absent", "doubtful", "seconds"):
        table.add_column(column, overflow="fold")
    for name, detection in results.items():
        states = [landmark.status for landmark in detection.landmarks]
        counts = (states.count(status) for status in ("found", "corrected", "absent"))
        doubtful = len(detection.doubtful)
        table.add_row(name, *map(str, (*counts, doubtful)), f"{detection.seconds:.1f}")
    return table
