"""Seed agents as the rest of the house knows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

from medrl.errors import MedrlError
from medrl.systems import Artifact, Progress, System

if TYPE_CHECKING:
    import numpy as np
    from monai.data.meta_tensor import MetaTensor
    from numpy.typing import NDArray

    from medrl.evaluation import Evaluation
    from medrl.results.findings import Finding
    from medrl.seednet.seeds import Seed
    from medrl.seednet.segment import SeedSegmenter, Segmentation
    from medrl.trajectory import Watch

#: The model for a single scan unless another is named, if it is there.
_DEFAULT = "hippocampus-t1"
_SIDECAR = ".seeds.mrk.json"


@dataclass(frozen=True)
class SegmentOptions:
    """What may be chosen."""

    target: str | None = None
    """Which of the model's kinds of object; its first if left out."""

    agent: bool = True
    """Let the agent add seeds."""

    max_seeds: int | None = None
    """Seeds that the agent may place at most."""


@dataclass(frozen=True)
class Given:
    """What comes with a scan."""

    seed: tuple[str, ...] = ()
    """fg:x,y,z inside the object or bg:x,y,z outside it, world millimetres; may be repeated. More
    triples, each after another colon, make a scribble."""

    seeds: tuple[Path, ...] = ()
    """3D Slicer points (.mrk.json) whose names, or whose list's name, say fg or bg."""

    box: str | None = None
    """The box that the object lies in: x0,y0,z0,x1,y1,z1 (world millimetres), or a file of boxes
    (.mrk.json, .csv), with :NAME if it holds several. It takes the place of seeds, or limits them.
    """

    space: Literal["RAS", "LPS"] = "RAS"
    """Space of the coordinates of --seed and --box; files state their own."""

    channel: str | None = None
    """What SCAN is, such as PET, for a model that looks at several images."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What may be chosen in an evaluation."""

    targets: tuple[str, ...] = ()
    """Names of the targets to measure; all of the model's if none is named."""

    channels: tuple[str, ...] = ()
    """Names of the images that the model may see; all that there are if none is named."""

    clicks: int = 5
    """Corrections by a simulated user after the agent's answer; 0 leaves that part out."""

    border_clicks: int = 3
    """Further first clicks on the border of each object, reported apart; 0 leaves that part out."""

    seed: int = 0
    """Of the first clicks, each on any voxel of its target."""


class _Case(NamedTuple):
    """Images by channel, the first of which gives the grid, the user's seeds, and a box."""

    images: dict[str, MetaTensor]
    seeds: list[Seed]
    box: NDArray[np.float64] | None


class SeedNetSystem(System):
    """Segments an object from seeds."""

    name = "seednet"
    verb = "segment"
    summary = "segment an object of a scan from seeds or a box, with an agent that adds its own"
    description = """Segment an object from seeds or a box; an agent adds its own until it stops.

Writes a mask in the scan's own grid (.seg.nii.gz), the seeds as 3D Slicer points
(.seeds.mrk.json), what the agent did (.trajectory.json) and a picture (.png), and of a DICOM series
the mask as a DICOM SEG (.seg.dcm). SCAN may be left out where --image names the scans; the mask
then comes in the grid of the first. In a batch, seeds of a.nii.gz are read from a.seeds.mrk.json
beside it, or named in the column `seeds` of a manifest: a file, or fg:x,y,z (RAS mm); boxes in the
column `box`."""
    images = True
    options = SegmentOptions
    given = Given
    artifacts: ClassVar[Mapping[str, Artifact]] = {
        ".seg.nii.gz": Artifact("dseg", ".nii.gz", "Objects segmented from seeds"),
        ".seeds.mrk.json": Artifact(
            "seeds", ".mrk.json", "Where the objects were marked, by the user and by the agent"
        ),
        ".trajectory.json": Artifact("agents", ".trajectory.json", "The path of every agent"),
        ".png": Artifact("dseg", ".png", "Objects in the image"),
    }
    group = "target"
    figures = ("volume_ml", "agent_seeds")
    recipe = "medrl.seednet.train"
    evaluate_options = EvaluateOptions

    def check_given(self, given: Given, scans: Collection[str]) -> None:
        """Refuse a case without a seed in the foreground or a box."""
        if given.channel is not None and "scan" not in scans:
            raise MedrlError("--channel says what SCAN is: name one, or use --image")
        if given.channel in scans:
            raise MedrlError("two images are of the same channel")
        seeds, box = _seeds(given), _box_of(given)
        if box is None and not any(seed.label for seed in seeds):
            raise MedrlError(
                "comes with no foreground seed: place at least one seed inside the object "
                "(--seed fg:x,y,z) or a box around it (--box), put NAME.seeds.mrk.json beside the "
                "scan, or give a manifest with a column seeds or box"
            )

    def choose_model(self, given: Given, scans: Collection[str]) -> str:
        """The shipped model for images of some channels, or for a scan of which nothing is known.

        Raises:
            MedrlError: If none fits.
        """
        from medrl.bundles import available

        channels = {name for name in (*scans, given.channel) if name not in ("scan", None)}
        looks_at = {
            bundle.name: {channel["name"] for channel in bundle.manifest["settings"]["channels"]}
            for bundle in available()
            if bundle.manifest["task"] == self.name
        }
        if channels:
            fitting = [name for name, known in looks_at.items() if channels <= known]
        else:
            fitting = [name for name, known in looks_at.items() if len(known) == 1]
        if not fitting:
            what = " and ".join(sorted(filter(None, channels))) or "a single scan"
            raise MedrlError(
                f"no model that ships with medrl segments {what}: name one with --model"
            )
        return _DEFAULT if _DEFAULT in fitting else fitting[0]

    def load(self, bundle: Path, *, device: str = "cpu") -> SeedSegmenter:
        """The segmenter of a trained model."""
        from medrl.seednet.model import SeedModel
        from medrl.seednet.segment import SeedSegmenter

        model, manifest = SeedModel.load(bundle, device=device)
        return SeedSegmenter(model, manifest=manifest)

    def check(self, predictor: SeedSegmenter, options: SegmentOptions) -> None:
        """Refuse targets that a model does not know."""
        predictor.model.target_index(options.target)
        if options.max_seeds is not None and options.max_seeds < 0:
            raise MedrlError("--max-seeds must not be negative")

    def read(
        self,
        predictor: SeedSegmenter,
        scans: Mapping[str, MetaTensor],
        given: Given,
        options: SegmentOptions,
    ) -> _Case:
        """Find out which channel each image is."""
        from medrl.volume.channels import name_images

        images = dict(scans)
        if "scan" in images:
            channels = predictor.model.settings.channels
            scan = images.pop("scan")
            left = [channel for channel in channels if channel.name not in images]
            images = {**name_images(scan, left or channels, channel=given.channel), **images}
        return _Case(images, _seeds(given), _box_of(given))

    def predict(
        self,
        predictor: SeedSegmenter,
        data: Sequence[_Case],
        options: SegmentOptions,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> list[Segmentation]:
        """Segment scans, one after the other."""
        return [
            predictor.segment(
                case.images,
                case.seeds,
                box=case.box,
                target=options.target,
                agent=options.agent,
                max_seeds=options.max_seeds,
                progress=progress,
                watch=watch,
            )
            for case in data
        ]

    def rows(self, result: Segmentation) -> list[dict[str, Any]]:
        """A row for each object."""
        from medrl.seednet.results import object_rows

        return object_rows(result.session)

    def report(self, result: Segmentation) -> dict[str, Any]:
        """The objects, and the seeds of the user and of the agent."""
        seeds = [
            {
                "label": seed.label_name,
                "who": seed.who,
                "points": [[float(value) for value in point] for point in seed.points_world],
                "expected_gain": None if math.isnan(seed.expected_gain) else seed.expected_gain,
            }
            for seed in result.session.seeds
        ]
        sure = {"confidence": result.confidence}
        return {"space": "RAS mm", **sure, "objects": self.rows(result), "seeds": seeds}

    def tables(self, results: Mapping[str, Segmentation]) -> list[Any]:
        """The objects of a scan."""
        from medrl.results.tables import plain_table

        return [
            plain_table(f"{name} ({result.seconds:.1f} s)", self.rows(result))
            for name, result in results.items()
        ]

    def findings(self, result: Segmentation) -> list[Finding]:
        """The objects as labels."""
        from medrl.results.findings import Mask

        labels = result.session.labels()
        return [Mask(labels, {number: name for name, number in labels.meta["labels"].items()})]

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """What a model segments, and what it looks at."""
        from medrl.bundles.manifest import named

        known = named(cast(Any, manifest))
        return {"targets": known["targets"], "images": known["channels"]}

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What a model finds, in a few words."""
        known = self.contents(manifest)
        return f"{', '.join(known['targets'])} on {', '.join(known['images'])}"

    def sidecar(self, scan: Path) -> dict[str, str]:
        """Seeds lie beside the scan."""
        from medrl.files import without_ending

        file = scan.parent / f"{without_ending(scan.name)}{_SIDECAR}"
        return {"seeds": str(file.absolute())} if file.is_file() else {}

    def evaluate(
        self,
        predictor: SeedSegmenter,
        *,
        data: Path,
        split: str,
        options: EvaluateOptions,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Evaluation:
        """Dice on scans with masks, from one click and after corrections."""
        from medrl.data.datalist import samples_of
        from medrl.evaluation import Evaluation, provenance
        from medrl.seednet.data import read_datalist
        from medrl.seednet.evaluate import evaluate, figures, tables

        for option in ("clicks", "border_clicks"):
            if getattr(options, option) < 0:
                raise MedrlError(f"--{option.replace('_', '-')} must not be negative")
        model = predictor.model
        names = [channel.name for channel in model.settings.channels]
        unknown = sorted(set(options.channels) - set(names))
        if unknown:
            raise MedrlError(
                f"the model looks at {' and '.join(names)}, not at {' or '.join(unknown)}"
            )
        targets = [model.target_index(name) for name in options.targets] or None
        samples = samples_of(read_datalist(data, names), split, data)
        seen = list(options.channels) or names
        for sample in samples:
            if not set(seen) & set(sample.images):
                raise MedrlError(f"{data}: {sample.name} has no image {' or '.join(seen)}")
        measured = evaluate(
            predictor,
            samples,
            seed=options.seed,
            clicks=options.clicks,
            border_clicks=options.border_clicks,
            targets=targets,
            channels=seen,
            progress=progress,
        )
        if not measured.rows:
            raise MedrlError(f"none of the targets is in the masks of the split {split!r}")
        known = provenance(
            predictor.manifest, data=str(data), split=split, channels=seen, seed=options.seed
        )
        by_target = figures(measured)
        return Evaluation(
            {**known, "targets": by_target},
            tables(by_target),
            files={"rows.csv": measured.records()},
        )

    def metrics(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """Figures by target."""
        return dict(summary["targets"])


def _box_of(given: Given) -> NDArray[np.float64] | None:
    """The box that the object lies in, if one is given."""
    from medrl.volume.box_files import parse_box

    return None if given.box is None else parse_box(given.box, space=given.space)


def _seeds(given: Given) -> list[Seed]:
    """The user's seeds, of texts and of files; where a file is expected texts are taken, too."""
    from medrl.seednet.seeds import parse_seed, read_seeds

    texts = list(given.seed)
    seeds = []
    for path in given.seeds:
        if path.suffix == ".json" or path.is_file():
            seeds += [seed for seed in read_seeds(path) if seed.who == "user"]
        else:
            texts += str(path).split()
    return [parse_seed(text, space=given.space) for text in texts] + seeds
