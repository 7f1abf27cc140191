"""What comes of registering two scans: made beside the window, told in words, written to files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medrl.files import joint_stem
from medrl.registration.register import Registration
from medrl.registration.transforms import Kind
from medrl.trajectory import Step
from medrl.volume.resample import move_scan
from medrl.volume.transform_files import kind_of, write_transform
from medrl_napari.jobs import Report
from medrl_napari.models import load_model
from medrl_napari.register.form import Request
from medrl_napari.register.preview import Preview
from medrl_napari.register.starts import Starts
from medrl_napari.scans import Shown
from medrl_napari.space import Floats


@dataclass(frozen=True, eq=False)
class Answer:
    """A transform between two scans, and where it comes from.

    Attributes:
        request: What was wanted.
        transform_world: (4, 4), fixed to moving, RAS mm.
        registration: What found it; None if it was loaded from a file.
    """

    request: Request
    transform_world: Floats
    registration: Registration | None = None

    @property
    def stem(self) -> str:
        """What files of both scans are called."""
        scans = self.request.moving, self.request.fixed.scan
        return joint_stem([Path(str(s.meta["filename_or_obj"])) for s in scans])

    @property
    def kind(self) -> Kind:
        """What the transform changes."""
        found = self.registration
        return kind_of(self.transform_world) if found is None else found.kind

    def aligned(self) -> Shown:
        """The moving scan on the fixed scan's own grid."""
        fixed = self.request.fixed
        return Shown(move_scan(self.request.moving, self.transform_world, fixed.scan), fixed.frame)

    def write_transform(self, path: Path) -> None:
        """Write the transform in the form that the file's ending names.

        Raises:
            MedrlError: If it cannot be written.
        """
        scans = {"fixed": self.request.fixed.scan, "moving": self.request.moving}
        write_transform(path, self.transform_world, kind=self.kind, **scans)

    def summary(self) -> str:
        """How far the answer is to be trusted, in a line or two."""
        found = self.registration
        if found is None:
            return ""
        sure = "unknown" if found.confidence is None else f"{found.confidence:.2f}"
        facts = (
            f"confidence {sure}, predicted error {found.predicted_error_mm:.1f} mm, "
            f"{'refined' if found.refined else 'not refined'}, {found.seconds:.1f} s"
        )
        if found.trusted:
            return f"Trusted: {facts}"
        if found.unfit:
            return f"NOT TRUSTED: {found.warnings[0]}. The answer: {facts}"
        return (
            f"NOT TRUSTED: {facts}. Look closely before you use it; masks, or a start near the "
            "answer, may help."
        )

    def stops(self) -> list[tuple[Floats, str]]:
        """Every transform on the way to the answer, and what to say of it."""
        found = self.registration
        if found is None:
            return []
        (path,) = found.trajectory.agents
        transforms = [] if path.transforms is None else list(path.transforms)
        stops = [
            (
                transform,
                f"{number} of {len(transforms)}, at {scale:g} mm: about {-value:.1f} mm off",
            )
            for number, (transform, scale, value) in enumerate(
                zip(transforms, path.scales_mm, path.values, strict=True), 1
            )
        ]
        if found.refined:
            stops.append((found.transform_world, "refined"))
        return stops


def register(request: Request, preview: Preview, starts: Starts, report: Report) -> Answer:
    """Do what is wanted, step by step under the eyes of whoever asked for it.

    Args:
        request: What is wanted.
        preview: Prepared for the first look at the moving scan.
        starts: Takes down what each start's agent does.
        report: Is told of the steps.

    Raises:
        MedrlError: If it cannot be done.
    """
    registrar = load_model(request.model)
    preview.get_ready()
    total = registrar.model.steps
    done = 0

    def watch(step: Step) -> None:
        nonlocal done
        starts.add(step)
        report.step(step)
        done += 1
        # A second round begins anew.
        report.progress((done - 1) % total + 1, total)

    found = registrar.register(
        request.fixed.scan,
        request.moving,
        transform=request.kind,
        refine=request.refine,
        fixed_mask=request.fixed_mask,
        moving_mask=request.moving_mask,
        initial_world=request.initial_world,
        watch=watch,
    )
    return Answer(request, np.asarray(found.transform_world, dtype=np.float64), found)
