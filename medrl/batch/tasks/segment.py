"""Segment an object of each scan from the seeds that it comes with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from medrl.batch.cases import Case, Verb
from medrl.batch.record import Record
from medrl.batch.store import Store
from medrl.batch.task import CaseProcessor, CaseTask, become_worker, read_scan, task_fingerprint
from medrl.engines import Progress
from medrl.errors import MedrlError

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms
    from medrl.seednet.seeds import Seed
    from medrl.seednet.session import SeedSession


@dataclass(frozen=True)
class SegmentTask(CaseTask):
    """Segment by seeds; an option ``target`` of a case goes before that of the task.

    Attributes:
        model: Name or folder.
        target: Which of the model's kinds of object; its first if None.
        agent: Let the agent add seeds.
        device: Torch device.
        picture: Draw pictures.
        pseudonyms: Take patients' identities out.
    """

    model: str = "hippocampus-t1"
    target: str | None = None
    agent: bool = True
    device: str = "cpu"
    picture: bool = True
    verb: ClassVar[Verb] = "segment"
    pseudonyms: Pseudonyms | None = None

    def open(self, threads: int, output: Store) -> CaseProcessor:
        """Load the agent."""
        from medrl.seednet.session import SeedSession

        become_worker(threads)
        return _Segmenting(self, output, SeedSession.load(self.model, device=self.device))

    def fingerprint(self) -> dict[str, Any]:
        """Model and options."""
        return task_fingerprint(self)


class _Segmenting(CaseProcessor):
    """Reads images and seeds, segments, writes what `medrl segment` writes."""

    def __init__(self, task: SegmentTask, store: Store, session: SeedSession) -> None:
        self._task = task
        self.store = store
        self._loaded = session

    def read(self, case: Case) -> tuple[dict[str, MetaTensor], list[Seed]]:
        text = case.options.get("seeds", "")
        file = case.here(text)
        seeds = read_seed_option(str(file) if file.is_file() else text)
        return {role: read_scan(case, role) for role in case.sources}, seeds

    def work(
        self,
        cases: Sequence[Case],
        data: Sequence[tuple[dict[str, MetaTensor], list[Seed]]],
        report: Callable[[Progress], None],
    ) -> list[tuple[SeedSession, list[str]]]:
        return [self._segment(case, *given) for case, given in zip(cases, data, strict=True)]

    def _segment(
        self, case: Case, images: dict[str, MetaTensor], seeds: list[Seed]
    ) -> tuple[SeedSession, list[str]]:
        from medrl.seednet.session import SeedSession

        # One of its own: the case before may still be being written.
        session = SeedSession(
            self._loaded.model, manifest=self._loaded.manifest, device=self._task.device
        )
        scan = images.pop("scan")
        session.set_scan({**self._named(scan, images, case), **images})
        session.new_object(target=case.options.get("target") or self._task.target)
        session.add_seeds(seeds)
        if self._task.agent:
            session.accept_all()
        remarks = [str(remark) for remark in scan.meta.get("remarks", ())]
        return session, remarks

    def save(self, case: Case, result: tuple[SeedSession, list[str]], folder: Path) -> Record:
        from medrl.seednet.results import dicom_segmentation, object_rows, write_results

        session, remarks = result
        masks = dicom_segmentation(session, pseudonyms=self._task.pseudonyms)
        files = write_results(
            folder, case.stem, session, picture=self._task.picture, segmentation=masks
        )
        picture = files.get("picture")
        said = [*remarks, *masks.remarks]
        return Record(object_rows(session), said, picture.name if picture else None)

    def _named(
        self, scan: MetaTensor, others: dict[str, MetaTensor], case: Case
    ) -> dict[str, MetaTensor]:
        """The case's scan as the channel that it is: as its options say, or by its values."""
        from medrl.seednet.images import name_images

        channels = self._loaded.model.settings.channels
        left = [channel for channel in channels if channel.name not in others]
        return name_images(scan, left or channels, channel=case.options.get("channel"))


def read_seed_option(text: str) -> list[Seed]:
    """The seeds that a case comes with.

    Args:
        text: A file (.mrk.json), or seeds as on the command line, ``fg:x,y,z`` and ``bg:x,y,z``
            in RAS mm, with blanks between them.

    Raises:
        MedrlError: If there is none in the foreground, or they cannot be read.
    """
    from medrl.seednet.seeds import parse_seed, read_seeds

    if Path(text).is_file():
        seeds = [seed for seed in read_seeds(text) if seed.who == "user"]
    else:
        seeds = [parse_seed(part) for part in text.split()]
    if not any(seed.label for seed in seeds):
        raise MedrlError(
            "comes with no foreground seed: put NAME.seeds.mrk.json beside it, or give a manifest "
            "with a column seeds"
        )
    return seeds
