"""Segment a scan from clicks: the public face of the seed agents for a scan at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from medrl.bundles.guard import not_made_for
from medrl.results import SavedFiles
from medrl.seednet.model import SeedModel
from medrl.seednet.seeds import Seed, parse_seed
from medrl.seednet.session import SeedSession
from medrl.trajectory import Trajectory, Watch
from medrl.volume.read import scan_of
from medrl.volume.space import as_box
from medrl.walker.segmenter import FOREGROUND

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms


#: A mask this unlikely to be right is worth a warning. Less than for a point: one click often is
#: not enough for a mask that is right, and more clicks are what the session is for.
_DOUBTFUL = 0.2


@dataclass(frozen=True, eq=False)
class Segmentation:
    """An object that was segmented.

    Attributes:
        mask: MetaTensor (1, I, J, K) uint8 of 0 and 1, in the scan's own grid.
        seeds: The user's, then the agent's; RAS mm.
        target: What kind of object it is.
        outcome: How the agent's work ended, in words.
        trajectory: The agent's seeds, one a step.
        warnings: What the user should know, one line each.
        seconds: Wall time from preparing the scan to the answer.
        confidence: Probability that the Dice overlap with the truth is 0.7 or more; None if the
            model is not calibrated.
        unfit: Why the model was not made for this scan, or for this object, one line each; the
            first of the warnings says so.
        session: To go on with: corrections, undo, further objects.
    """

    mask: MetaTensor
    seeds: tuple[Seed, ...]
    target: str
    outcome: str
    trajectory: Trajectory
    warnings: tuple[str, ...]
    seconds: float
    session: SeedSession
    confidence: float | None = None
    unfit: tuple[str, ...] = ()

    def save(
        self,
        folder: str | Path,
        stem: str | None = None,
        *,
        picture: bool = True,
        pseudonyms: Pseudonyms | None = None,
    ) -> SavedFiles:
        """Write mask, seeds, trajectory and picture; see :mod:`medrl.seednet.results`.

        Args:
            folder: Existing folder.
            stem: What the files are called; after the scan if None.
            picture: Draw the picture.
            pseudonyms: Take the patient's identity out of the DICOM SEG.
        """
        from medrl.files import stem_of
        from medrl.results.provenance import file_of
        from medrl.seednet.results import dicom_segmentation, write_results

        name = file_of(next(iter(self.session.images.values())))
        stem = stem or (stem_of(Path(name)) if name else "scan")
        masks = dicom_segmentation(self.session, pseudonyms=pseudonyms)
        files = write_results(Path(folder), stem, self.session, picture=picture, segmentation=masks)
        return SavedFiles(files, masks.remarks)


class SeedSegmenter:
    """Segments objects of scans from seeds, with one trained model.

    >>> segmenter = medrl.load("hippocampus-t1")
    >>> segmentation = segmenter.segment("head.nii.gz", ["fg:-25.5,-21,-14"])
    >>> segmentation.mask
    """

    def __init__(self, model: SeedModel, *, manifest: Mapping[str, Any] | None = None) -> None:
        """Use a model that is in memory already.

        Args:
            model: The trained agent, on its device.
            manifest: The bundle's ``model.json``, for provenance.
        """
        self.model = model
        self.manifest = dict(manifest or {"name": "unnamed"})

    def session(self) -> SeedSession:
        """A session of its own with the model, for work click by click."""
        return SeedSession(self.model, manifest=self.manifest)

    def segment(
        self,
        scan: MetaTensor | str | Path | Mapping[str, MetaTensor | str | Path],
        seeds: Sequence[Seed | str] = (),
        *,
        box: ArrayLike | None = None,
        target: str | None = None,
        channel: str | None = None,
        agent: bool = True,
        max_seeds: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        watch: Watch | None = None,
    ) -> Segmentation:
        """Segment one object.

        Args:
            scan: A file, or MetaTensor (1, I, J, K) with a voxel-to-world affine (RAS mm); or
                several of one patient by channel name. The mask comes in the grid of the first.
            seeds: The user's, at least one in the foreground unless there is a box: as text
                ``fg:x,y,z`` or ``bg:x,y,z``, RAS mm.
            box: (2, 3) RAS mm, smallest and largest coordinates of a box that the object lies in:
                all else is background. Without a foreground seed, one is placed where the model
                sees the object in it.
            target: Which of the model's kinds of object; the first if None.
            channel: What a single scan is, for a model that looks at several.
            agent: Let the agent add seeds.
            max_seeds: As many as it may; as many as it was trained to place if None.
            progress: Called with the agent's seeds so far and the most there can be.
            watch: Called with every seed that the agent places.

        Returns:
            The mask, and the session that made it.

        Raises:
            MedrlError: If the scan cannot be what the model was trained for, or a seed or the box
                cannot be.
        """
        began = time.perf_counter()
        images = scan if isinstance(scan, Mapping) else {"": scan}
        read = {name: scan_of(image) for name, image in images.items()}
        session = self.session()
        session.set_scan(read if isinstance(scan, Mapping) else read[""], channel=channel)
        session.new_object(target=target)
        if box is not None:
            session.set_limits(as_box(box))
        own = [parse_seed(s) if isinstance(s, str) else s for s in seeds]
        session.add_seeds(own)
        if box is not None and not any(seed.label == FOREGROUND for seed in own):
            session.add_seed_in_limits()
        if agent:
            session.accept_all(max_seeds=max_seeds, progress=progress, watch=watch)
        remarks = [str(line) for image in read.values() for line in image.meta.get("remarks", ())]
        unfit = session.unfit()
        if unfit:
            remarks.insert(0, not_made_for(str(self.manifest.get("name")), unfit))
        sure = session.confidence()
        if sure is not None and sure < _DOUBTFUL and not unfit:
            remarks.append(f"doubtful, look at the mask: confidence {sure:.2f}")
        return Segmentation(
            mask=session.mask(),
            seeds=session.seeds,
            target=session.target_of(),
            outcome=session.outcome(),
            trajectory=session.trajectory(),
            warnings=tuple(remarks),
            seconds=time.perf_counter() - began,
            session=session,
            confidence=sure,
            unfit=unfit,
        )
