"""The alignment of heads as the rest of the house knows it: it uses landmark models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from rich.table import Table

    from medrl.alignment.align import Aligner, Alignment
    from medrl.errors import MedrlError
    from medrl.results.findings import Finding
    from medrl.trajectory import Watch


@dataclass(frozen=True)
class AlignOptions:
    """What may be chosen."""

    to: Literal["acpc", "mni"] = "acpc"
    """The AC-PC frame of surgeons (rigid), or MNI space (affine; MNI152NLin2009cAsym)."""

    origin: Literal["AC", "midpoint"] = "AC"
    """Origin of the AC-PC frame: AC, or the midpoint of AC and PC."""

    spacing: float | None = None
    """Voxel size of the aligned scan, mm; left out: the scan's own, in MNI space 1."""

    header: bool = False
    """Keep the voxels and change the header alone: nothing is resampled (AC-PC frame)."""


def _artifacts() -> dict[str, Artifact]:
    kinds = {
        ".nii.gz": (None, ".nii.gz", "The image"),
        ".tfm": ("xfm", ".tfm", "Brings the image there; points of that space go to the image's"),
        ".matrix.txt": ("xfm", ".txt", "The transform as a 4x4 matrix, RAS mm"),
        ".report.json": ("xfm", ".json", "What there is to say of the transform"),
        ".png": (None, ".png", "Planes of the image through AC"),
        ".mrk.json": ("landmarks", ".mrk.json", "The points that it rests on"),
        ".csv": ("landmarks", ".tsv", "The points that it rests on"),
    }
    spaces = {"acpc": "ACPC", "mni": "MNI152NLin2009cAsym"}
    found = {
        f"_{to}{ending}": Artifact(suffix, new, f"{meaning}; space {space}", space=space)
        for to, space in spaces.items()
        for ending, (suffix, new, meaning) in kinds.items()
    }
    agents = Artifact("agents", ".trajectory.json", "The path of every agent")
    return {**found, ".trajectory.json": agents}


class AlignmentSystem(System):
    """Brings heads into the AC-PC frame or MNI space, by the landmarks of a landmark model."""

    name = "alignment"
    verb = "align"
    summary = "bring heads into the AC-PC frame or MNI space"
    description = """Bring heads into the AC-PC frame or MNI space, by anatomical landmarks.

Writes for each scan the aligned scan (_acpc.nii.gz or _mni.nii.gz), the transform for ITK and 3D
Slicer (.tfm), which `medrl apply` takes for labels and other scans in the same space, and as a 4x4
world matrix (.matrix.txt), the points there (.mrk.json, .csv), a report (.report.json), a picture
through AC (.png), and every agent's path in the scan's own world (.trajectory.json)."""
    models = "landmark"
    default_model = "afids-t1"
    options = AlignOptions
    several = True
    artifacts: ClassVar[Mapping[str, Artifact]] = _artifacts()
    figures = ("confidence", "ac_pc_mm", "roll_sd_deg", "residual_mm")

    def load(self, bundle: Path, *, device: str = "cpu") -> Aligner:
        """The landmarks of a trained model, put to this use."""
        from medrl.alignment.align import Aligner

        return Aligner.load(bundle, device=device)

    def check(self, predictor: Aligner, options: AlignOptions) -> None:
        """Refuse models that lack points, and options that contradict each other."""
        predictor.check(**asdict(options))

    def predict(
        self,
        predictor: Aligner,
        data: Sequence[MetaTensor],
        options: AlignOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Alignment | MedrlError]:
        """Align scans, at the same time if there are several."""
        how = asdict(options)
        if len(data) > 1:
            return predictor.align_many(data, **how)
        return [predictor.align(scan, **how, progress=progress, watch=watch) for scan in data]

    def batch_size(self, device: str) -> int:
        """Agents of several scans share batches on a GPU."""
        return 8 if device.startswith("cuda") else 1

    def doubt(self, result: Alignment) -> str | None:
        """What speaks most against it."""
        return next(iter(result.doubts), None)

    def rows(self, result: Alignment) -> list[dict[str, Any]]:
        """The figures of a scan, and its transform."""
        matrix = result.transform_world
        known = dict.fromkeys(("ac_pc_mm", "roll_sd_deg", "plane_rms_mm", "residual_mm"))
        return [
            {
                "to": result.to,
                "confidence": result.confidence,
                **known,
                **result.fit.figures,
                "points": len(result.fit.used),
                **{f"m{r}{c}": float(matrix[r, c]) for r in range(3) for c in range(4)},
            }
        ]

    def report(self, result: Alignment) -> dict[str, Any]:
        """What the report on disk says."""
        from medrl.alignment.results import alignment_report

        return alignment_report(result)

    def tables(self, results: Mapping[str, Alignment]) -> list[Table]:
        """A line for each scan."""
        from rich.table import Table

        from medrl.alignment.picture import facts

        table = Table(box=None, pad_edge=False)
        for column in ("scan", "aligned to", "points", "how well", "confidence", "seconds"):
            table.add_column(column, overflow="fold")
        for name, result in results.items():
            sure = "-" if result.confidence is None else f"{result.confidence:.2f}"
            count, took = str(len(result.fit.used)), f"{result.seconds:.1f}"
            table.add_row(name, result.to, count, facts(result), sure, took)
        return [table]

    def findings(self, result: Alignment) -> list[Finding]:
        """The scan in the frame, and the points there."""
        import numpy as np

        from medrl.results.findings import Motion, Points

        places = result.points_world
        sure = np.array([result.detection[name].confidence for name in places])
        positions = np.array(list(places.values())).reshape(-1, 3)
        return [
            Motion(self.roles[0], result.transform_world),
            Points(tuple(places), positions, sure),
        ]

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What an alignment finds."""
        return "the AC-PC frame, MNI space"
