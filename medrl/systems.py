"""The registry: what the house may know of a system, and which there are.

A system is one kind of agent with everything that makes it a tool: landmark search, seeds,
registration. The command line, batches, trained models and the napari panel iterate over what is
registered here; none of them knows a system by name. Another package adds its own by an entry point
of the group ``medrl.systems``::

    [project.entry-points."medrl.systems"]
    brightest = "my_package.system:BrightestSystem"
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from medrl.errors import MedrlError

if TYPE_CHECKING:
    from medrl.engines import Engine
    from medrl.results.findings import Finding
    from medrl.trajectory import Trajectory, Watch

#: One line a system: loaded on first use, so that asking what there is costs nothing.
_OWN = {
    "landmark": "medrl.landmark.system:LandmarkSystem",
    "seednet": "medrl.seednet.system:SeedNetSystem",
    "registration": "medrl.registration.system:RegistrationSystem",
    "localization": "medrl.localization.system:LocalizationSystem",
    "alignment": "medrl.alignment.system:AlignmentSystem",
    "cutting": "medrl.cutting.system:CuttingSystem",
    "tracking": "medrl.tracking.system:TrackingSystem",
}
_GROUP = "medrl.systems"

#: Called with how much is done and how much there is.
Progress = Callable[[int, int], None]
#: Called with what is being done, the steps done, all steps, and numbers worth showing.
Report = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class NoOptions:
    """Of a system that leaves nothing to choose."""


@dataclass(frozen=True)
class Artifact:
    """One kind of file that a result leaves.

    Attributes:
        suffix: What BIDS calls it (``landmarks``, ``dseg``, ``xfm``); None for that of the scan.
        ending: Its ending in a BIDS derivative.
        meaning: What it is, in a sentence, for the sidecar.
        columns: Of a table: what each column holds, as BIDS sidecars have it.
        space: What BIDS calls the space that it lies in, or leads to, if not the scan's own.
    """

    suffix: str | None
    ending: str
    meaning: str
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    space: str | None = None


class Result(Protocol):
    """What every predictor returns: a frozen dataclass with at least this.

    ``confidence`` is the probability of what the system states, or None where it judges nothing as
    a whole.
    """

    @property
    def trajectory(self) -> Trajectory:
        """What the agents did."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know, one line each."""

    @property
    def seconds(self) -> float:
        """Wall time from preprocessing to answer."""

    @property
    def confidence(self) -> float | None:
        """How sure it is."""

    def save(self, folder: Path, stem: str | None = None, **options: Any) -> dict[str, Path]:
        """Write standard files, all of them or none; paths by kind, the main file first.

        Options are ``picture`` (draw one) and ``pseudonyms`` (take identities out of DICOM).
        What the user should know of the files goes into :class:`medrl.results.SavedFiles`.
        """


class System(ABC):
    """What the rest of the house knows of a system; ``<system>/system.py`` has the subclass.

    The module that holds it is imported for ``medrl --help``: it imports nothing heavy outside of
    its methods.

    Attributes:
        name: What ``medrl train`` calls it, and the ``task`` of its models.
        verb: What it does, as a command: ``medrl detect``.
        summary: One line for ``medrl --help``.
        description: What the command does and writes, for ``medrl VERB --help``.
        models: Name of the system whose models it uses; None for its own. One that uses another's
            is neither trained nor measured by itself.
        default_model: Name of the model that is used unless another is named.
        roles: Scans that a case consists of; the last one gives it its name, the others may be
            the same for all cases of a batch.
        images: Whether a case may have further scans, by the names of their channels, or only
            such: ``--image CHANNEL=PATH``, columns of a batch's manifest.
        options: A frozen dataclass: what a user may choose. Fields have a type, a default, and a
            docstring below them; they become options of the commands, columns of a batch's
            manifest, are part of what a batch was run with, and make the form of the panel.
        given: A frozen dataclass of texts and paths that come with a case: seeds, masks, a start.
            Options of ``medrl VERB``, columns of a batch's manifest.
        several: Whether ``medrl VERB`` takes several cases at once.
        films: Whether a scan may be a film as well: a folder of pictures, a video, a scan of four
            dimensions.
        artifacts: What :meth:`Result.save` writes, by ending.
        group: Column of :meth:`rows` by which a report groups them, if any.
        figures: Columns of :meth:`rows` that tell cases apart in a report.
        recipe: Module that holds ``TrainSettings`` and ``train``, see :attr:`train_settings` and
            :meth:`train`; None for a system that cannot be trained.
        evaluate_options: What may be chosen in an evaluation, a frozen dataclass.
    """

    name: ClassVar[str]
    verb: ClassVar[str]
    summary: ClassVar[str]
    description: ClassVar[str] = ""
    models: ClassVar[str | None] = None
    default_model: ClassVar[str | None] = None
    roles: ClassVar[tuple[str, ...]] = ("scan",)
    images: ClassVar[bool] = False
    options: ClassVar[type[Any]] = NoOptions
    given: ClassVar[type[Any]] = NoOptions
    several: ClassVar[bool] = False
    films: ClassVar[bool] = False
    artifacts: ClassVar[Mapping[str, Artifact]] = {}
    group: ClassVar[str | None] = None
    figures: ClassVar[tuple[str, ...]] = ("confidence",)
    recipe: ClassVar[str | None] = None
    evaluate_options: ClassVar[type[Any]] = NoOptions

    # Using a model ------------------------------------------------------------------------------

    def check_given(self, given: Any, scans: Collection[str]) -> None:  # noqa: B027 - as below
        """Refuse what comes with a case if its form is wrong, before anything is loaded.

        Args:
            given: Of the type :attr:`given`.
            scans: Roles and channels of the scans that are named.

        Raises:
            MedrlError: If something is missing, or cannot be meant.
        """

    def choose_model(self, given: Any, scans: Collection[str]) -> str:
        """The model that is used unless one is named.

        Args:
            given: Of the type :attr:`given`.
            scans: Roles and channels of the scans that are named, with their paths where these are
                known.

        Raises:
            MedrlError: If none fits.
        """
        if self.default_model is None:
            raise MedrlError("name a model: --model")
        return self.default_model

    @abstractmethod
    def load(self, bundle: Path, *, device: str = "cpu") -> Any:
        """The predictor of a trained model.

        Args:
            bundle: Its folder.
            device: Torch device.

        Raises:
            MedrlError: If the model is damaged or of another system.
        """

    def check(self, predictor: Any, options: Any) -> None:  # noqa: B027 - most have nothing to refuse
        """Refuse options that do not fit a model, before any scan is read.

        Raises:
            MedrlError: If one does not.
        """

    def read(self, predictor: Any, scans: Mapping[str, Any], given: Any, options: Any) -> Any:
        """Make what :meth:`predict` takes of the scans of a case and what comes with it.

        Args:
            predictor: From :meth:`load`.
            scans: The scans by role, as :func:`medrl.volume.read` gives them; further ones by the
                name of their channel.
            given: Of the type :attr:`given`.
            options: Of the type :attr:`options`.

        Raises:
            MedrlError: If something is missing or not fit.
        """
        return scans[self.roles[0]]

    @abstractmethod
    def predict(
        self,
        predictor: Any,
        data: Sequence[Any],
        options: Any,
        *,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> Sequence[Any]:
        """Do it for some cases, several at a time where that is faster.

        Args:
            predictor: From :meth:`load`.
            data: One of :meth:`read` for each case.
            options: Of the type :attr:`options`.
            progress: Told how far it is.
            watch: Told of every step of the agents; only for a single case.

        Returns:
            A result for each case, or the MedrlError that says why there is none.
        """

    def batch_size(self, device: str) -> int:
        """How many cases :meth:`predict` is best given at once."""
        return 1

    # What came of it ----------------------------------------------------------------------------

    def save(
        self, result: Any, folder: Path, stem: str, options: Any, **how: Any
    ) -> dict[str, Path]:
        """Write a result as the options want it; see :meth:`Result.save`."""
        files: dict[str, Path] = result.save(folder, stem, **how)
        return files

    def doubt(self, result: Any) -> str | None:
        """Why nobody should use a result without a look at it, in one line; None if nothing is.

        Of a result with ``unfit``, reasons why the model was not made for the scan, it is the first
        of the warnings, which says so.
        """
        return result.warnings[0] if getattr(result, "unfit", ()) else None

    @abstractmethod
    def rows(self, result: Any) -> list[dict[str, Any]]:
        """The result as rows of a table, in terms of JSON."""

    def case_figures(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Figures of a case as a whole, beside :attr:`figures`, that tell cases apart."""
        return {}

    def report(self, result: Any) -> dict[str, Any]:
        """What ``medrl VERB --json`` prints of a result, beside scans, files and warnings."""
        return {"rows": self.rows(result)}

    def tables(self, results: Mapping[str, Any]) -> Sequence[Any]:
        """What ``medrl VERB`` prints: tables of rich, of results by the name of their case."""
        from medrl.results.tables import plain_table

        return [plain_table(name, self.rows(result)) for name, result in results.items()]

    def findings(self, result: Any) -> Sequence[Finding]:
        """What there is to see in a result."""
        return ()

    # Models -------------------------------------------------------------------------------------

    def contents(self, manifest: Mapping[str, Any]) -> dict[str, list[str]]:
        """What a model knows, by kind: landmarks, targets, images."""
        return {}

    def finds(self, manifest: Mapping[str, Any]) -> str:
        """What a model finds, in a few words."""
        return ", ".join(f"{len(names)} {kind}" for kind, names in self.contents(manifest).items())

    def modality(self, manifest: Mapping[str, Any]) -> str:
        """``MR``, ``CT``, ``PET`` or ``any``: what a model looks at."""
        return str(manifest["settings"].get("modality", "any"))

    def sidecar(self, scan: Path) -> Mapping[str, str]:
        """What lies beside a scan that a batch has found: texts for fields of :attr:`given`."""
        return {}

    # Learning and measuring ---------------------------------------------------------------------

    @property
    def train_settings(self) -> type[Any] | None:
        """The recipe as a frozen dataclass with at least ``name``, ``seed`` and ``resume``."""
        if self.recipe is None:
            return None
        settings: type[Any] = import_module(self.recipe).TrainSettings
        return settings

    def train(
        self,
        settings: Any,
        *,
        data: Path,
        out: Path,
        card: Mapping[str, Any],
        report: Report | None = None,
        engine: Engine | None = None,
    ) -> Path:
        """Train a model; the folder of its bundle.

        Args:
            settings: Of the type :attr:`train_settings`.
            data: A datalist.
            out: Output folder, with checkpoints to go on from.
            card: The model card.
            report: Told how it goes.
            engine: Where stages that do not need each other run side by side; None for this
                process, one after the other.

        Raises:
            MedrlError: If the data or settings are unusable.
        """
        if self.recipe is None:
            raise MedrlError(f"{self.name} models cannot be trained")
        bundle: Path = import_module(self.recipe).train(
            settings,
            data=data,
            out=out,
            card=card,
            report=report or (lambda *_: None),
            engine=engine,
        )
        return bundle

    def refit_guard(
        self, bundle: Path, *, data: Path, out: Path | None = None, report: Report | None = None
    ) -> Path:
        """Measure anew what a model was trained on; its weights stay as they are.

        Args:
            bundle: The model's folder.
            data: A datalist with its training scans.
            out: Where the model is written; over the one that is there if None.
            report: Told how it goes.

        Raises:
            MedrlError: If the data or the model are unusable, or the system's models have no guard.
        """
        recipe = None if self.recipe is None else import_module(self.recipe)
        refit: Callable[..., Path] | None = getattr(recipe, "refit_guard", None)
        if refit is None:
            raise MedrlError(f"{self.name} models have no guard")
        return refit(bundle, data=data, out=out, report=report)

    def evaluate(
        self,
        predictor: Any,
        *,
        data: Path,
        split: str,
        options: Any,
        progress: Callable[[int, int, str], None] | None = None,
    ) -> Any:
        """Measure a model on labelled scans, next to what it has to beat.

        Args:
            predictor: From :meth:`load`.
            data: A datalist.
            split: ``training``, ``validation`` or ``test``.
            options: Of the type :attr:`evaluate_options`.
            progress: Told how far it is, and with what.

        Returns:
            A :class:`medrl.evaluation.Evaluation`.

        Raises:
            MedrlError: If nothing can be measured.
        """
        raise MedrlError(f"{self.name} models cannot be evaluated")

    def metrics(self, summary: Mapping[str, Any]) -> dict[str, Any]:
        """What of an evaluation's summary goes into the manifest of the model."""
        return dict(summary)


# Which there are --------------------------------------------------------------------------------


@cache
def _sources() -> dict[str, str | EntryPoint]:
    """Where each system is, by name; medrl's own win over others of the same name."""
    others = {point.name: point for point in entry_points(group=_GROUP)}
    return {**_OWN, **{name: point for name, point in others.items() if name not in _OWN}}


def names() -> tuple[str, ...]:
    """Names of all systems, loaded or not."""
    return tuple(_sources())


@cache
def get(name: str) -> System:
    """The system of a name.

    Raises:
        MedrlError: If there is none, or the package that brings it is broken.
    """
    source = _sources().get(name)
    if source is None:
        raise MedrlError(
            f"there is no system {name!r}: a newer medrl or another package may have it; "
            f"there are {', '.join(names())}"
        )
    if isinstance(source, str):
        module, _, attribute = source.partition(":")
        found = getattr(import_module(module), attribute)
    else:
        try:
            found = source.load()
        except Exception as error:
            raise MedrlError(
                f"the system {name!r} of {source.value} cannot be loaded: {error}"
            ) from error
    system = found()
    if not isinstance(system, System) or system.name != name:
        raise MedrlError(f"{found!r} is not the medrl system {name!r}")
    return system


def all_systems() -> list[System]:
    """All systems; one of another package that is broken is left out."""
    found = []
    for name in names():
        try:
            found.append(get(name))
        except MedrlError:
            if name in _OWN:
                raise
    return found


def by_verb(verb: str) -> System:
    """The system that does something.

    Raises:
        MedrlError: If none does.
    """
    for system in all_systems():
        if system.verb == verb:
            return system
    raise MedrlError(
        f"no system does {verb!r}: there are {', '.join(s.verb for s in all_systems())}"
    )


def of_model(name_or_folder: str | Path) -> tuple[System, Path]:
    """The system of a model, and the model's folder.

    Raises:
        MedrlError: If there is no such model, or no such system.
    """
    from medrl.bundles import find, read_manifest

    bundle = find(name_or_folder)
    return get(read_manifest(bundle)["task"]), bundle


def load(name_or_folder: str | Path, *, device: str = "cpu") -> Any:
    """Load a trained model of any system.

    Args:
        name_or_folder: Name of a model that ships with medrl (``medrl models``), or the folder of
            any.
        device: Torch device: ``cpu``, ``cuda``, ``cuda:1``.

    Returns:
        The predictor of the model's system: :class:`medrl.LandmarkDetector`,
        :class:`medrl.SeedSegmenter`, :class:`medrl.Registrar`, or another package's.

    Raises:
        MedrlError: If there is no such model, it is damaged, or the device is not there.
    """
    system, bundle = of_model(name_or_folder)
    check_device(device)
    return system.load(bundle, device=device)


def check_device(device: str) -> None:
    """Refuse a torch device that is not there, or not supported.

    Raises:
        MedrlError: If it is not.
    """
    if device == "cpu":
        return  # there without having to import PyTorch, which takes seconds
    import torch

    try:
        kind = torch.device(device)
    except RuntimeError:
        raise MedrlError(f"{device!r} is not a device: try cpu or cuda") from None
    if kind.type not in ("cpu", "cuda"):
        raise MedrlError(f"device {device} is not supported: use cpu or cuda")
    count = torch.cuda.device_count()
    if kind.type == "cuda" and not count:
        raise MedrlError(f"device {device} is not available here: use cpu")
    if kind.type == "cuda" and (kind.index or 0) >= count:
        raise MedrlError(f"there is no device {device}: this machine has {count}")
