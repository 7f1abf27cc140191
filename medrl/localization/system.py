"""Box agents as the rest of the house knows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medrl.errors import MedrlError
from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from rich.table import Table

    from medrl.evaluation import Evaluation
    from medrl.localization.answer import Localization
    from medrl.localization.localize import Localizer
    from medrl.results.findings import Finding
    from medrl.trajectory import Watch

_STATUS_STYLES = {"found": "green", "absent": "yellow"}


@dataclass(frozen=True)
class LocalizeOptions:
    """What may be chosen."""

    targets: tuple[str, ...] = ()
    """Report only these; all if left out."""

    crop: tuple[str, ...] = ()
    """Also write the scan cut to these boxes, with its affine; "all" for every one found."""

    margin_mm: float = 0.0
    """Room around a box that the scan is cut to."""


class LocalizationSystem(System):
    """Boxes organs."""

    name = "localization"
    verb = "localize"
    summary = "box organs in scans"
    description = """Box organs in scans.

Writes for each scan a 3D Slicer ROI for every box (.mrk.json), a table (.csv; RAS mm), every
agent's path (.trajectory.json) and a picture (.png), of a DICOM series a DICOM SR (.sr.dcm), and
with --crop the scan cut to boxes. A model that looks at several images takes them by --image; boxes
are those of the first."""
    default_model = "spine-boxes"
    images = True
    options = LocalizeOptions
    several = True
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        ".mrk.json": Artifact(
            "boxes",
            ".mrk.json",
            "Boxes found by agents along the axes of the world; RAS+ mm in the world of the image",
            {
                "name": {"Description": "Of what is in the box"},
                **{
                    f"{axis}_{end}": {"Description": "RAS+ world coordinate", "Units": "mm"}
                    for end in ("min", "max")
                    for axis in "xyz"
                },
                "status": {"Description": "found, or absent: its middle is not in the image"},
                "confidence": {"Description": "From 0 to 1"},
                "note": {"Description": "What is unusual"},
            },
        ),
        ".csv": Artifact("boxes", ".tsv", "Boxes found by agents"),
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The path of every agent"),
        ".png": Artifact("boxes", ".png", "Boxes in the image"),
    }
    group = "target"
    recipe = "medrl.localization.train"

    # Using a model ------------------------------------------------------------------------------

    def load(self, bundle: Path, *, device: str = "cpu") -> Localizer:
        """The localizer of a trained model."""
        from medrl.localization.localize import Localizer

        return Localizer.load(bundle, device=device)

    def check(self, predictor: Localizer, options: LocalizeOptions) -> None:
        """Refuse targets that a model does not know, and impossible margins."""
        wanted = predictor.check(options.targets)
        unknown = sorted(set(options.crop) - set(wanted) - {"all"})
        if unknown:
            raise MedrlError(f"--crop: {', '.join(unknown)} is not among {', '.join(wanted)}")
        if not 0 <= options.margin_mm < 1000:
            raise MedrlError("--margin-mm must be from 0 to 1000 mm")

    def read(
        self,
        predictor: Localizer,
        scans: Mapping[str, MetaTensor],
        given: Any,
        options: LocalizeOptions,
    ) -> MetaTensor | dict[str, MetaTensor]:
        """One image, or several by the names of their channels."""
        from medrl.volume.channels import name_images

        images = dict(scans)
        channels = predictor.model.settings.channels
        if "scan" not in images or (channels and len(images) > 1):
            scan = images.pop("scan", None)
            if scan is not None:
                left = [channel for channel in channels if channel.name not in images]
                images = {**name_images(scan, left or channels), **images}
            return images
        return images["scan"]

    def predict(
        self,
        predictor: Localizer,
        data: Sequence[MetaTensor | dict[str, MetaTensor]],
        options: LocalizeOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Localization | MedrlError]:
        """Box targets in scans."""
        wanted = options.targets or None
        found: list[Localization | MedrlError] = []
        for scan in data:
            try:
                found.append(
                    predictor.localize(scan, targets=wanted, progress=progress, watch=watch)
                )
            except MedrlError as error:
                if len(data) == 1:
                    raise
                found.append(error)
        return found

    # What came of it ----------------------------------------------------------------------------

    def save(
        self, result: Localization, folder: Path, stem: str, options: LocalizeOptions, **how: Any
    ) -> dict[str, Path]:
        """Write boxes, and the scan cut to those that are wanted and there."""
        there = [box.name for box in result.boxes if box.status != "absent"]
        crop = [name for name in options.crop if name == "all" or name in there]
        return result.save(folder, stem, crop=crop, margin_mm=options.margin_mm, **how)

    def rows(self, result: Localization) -> list[dict[str, Any]]:
        """A row for each box."""
        from medrl.localization.results import box_rows

        return [
            {"target" if key == "name" else key: value for key, value in row.items()}
            for row in box_rows(result)
        ]

    def case_figures(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """How many targets are not in the scan."""
        return {"absent": sum(row.get("status") == "absent" for row in rows)}

    def report(self, result: Localization) -> dict[str, Any]:
        """The boxes of a scan."""
        from medrl.localization.results import box_rows

        return {"space": "RAS mm", "boxes": box_rows(result)}

    def tables(self, results: Mapping[str, Localization]) -> list[Table]:
        """The boxes of each scan."""
        return [_box_table(name, found) for name, found in results.items()]

    def findings(self, result: Localization) -> list[Finding]:
        """The boxes that are in the scan."""
        import numpy as np

        from medrl.results.findings import Boxes

        there = [box for box in result.boxes if box.status != "absent"]
        corners = np.array([box.corners_world for box in there]).reshape(-1, 2, 3)
        return [Boxes(tuple(box.name for box in there), corners)]

    # Models -------------------------------------------------------------------------------------

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """The targets that a model knows, and the images that it looks at by name."""
        channels = manifest["settings"]["preprocessing"].get("channels", ())
        images = {"images": [one["name"] for one in channels]} if channels else {}
        return {"targets": list(manifest["targets"]), **images}

    # Learning and measuring ---------------------------------------------------------------------

    def evaluate(
        self,
        predictor: Localizer,
        *,
        data: Path,
        split: str,
        options: Any,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Evaluation:
        """Overlaps with labelled boxes, next to the mean box of the training scans."""
        from dataclasses import replace

        from medrl.data.datalist import samples_of
        from medrl.evaluation import provenance
        from medrl.localization.baselines import ConstantBox
        from medrl.localization.data import read_datalist
        from medrl.localization.evaluate import evaluate

        samples = read_datalist(data, channels=predictor.model.settings.channels)
        constant = ConstantBox(samples["training"], predictor.target_names)
        scans = samples_of(samples, split, data)
        found = evaluate(predictor, scans, baselines={constant.name: constant}, progress=progress)
        made_by = provenance(predictor.manifest, data=str(data), split=split)
        return replace(found, summary={**made_by, **found.summary})

    def metrics(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Figures of all methods, and the overlap of the agents for each target."""
        return {
            "scans": summary["scans"],
            "methods": summary["methods"],
            "mean_iou_by_target": {
                name: figures["mean"] for name, figures in summary["targets"].items()
            },
        }


def _box_table(name: str, found: Localization) -> Table:
    from rich.table import Table
    from rich.text import Text

    from medrl.localization.results import box_rows
    from medrl.volume.box_files import COLUMNS

    title = Text(f"{name} ({found.seconds:.1f} s)")
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("target", no_wrap=True)
    for pair in ("R mm", "A mm", "S mm"):
        table.add_column(pair, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("confidence", justify="right", no_wrap=True)
    table.add_column("note")
    for row in box_rows(found):
        ends = [row[column] for column in COLUMNS]
        spans = ["-"] * 3
        if ends[0] is not None:
            spans = [f"{a:.0f} to {b:.0f}" for a, b in zip(ends[:3], ends[3:], strict=True)]
        sure = "-" if row["confidence"] is None else f"{row['confidence']:.2f}"
        status = Text(row["status"], style=_STATUS_STYLES.get(row["status"], ""))
        table.add_row(row["name"], *spans, status, sure, row["note"])
    return table
