"""What is done to each case, as engines are told of it."""

from __future__ import annotations

import logging
import os
import shutil
import time
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from medrl.batch.bids_names import no_scan_by_name
from medrl.batch.cases import Case, Source
from medrl.batch.derivatives import arrange
from medrl.batch.store import Record, Store
from medrl.engines import Processor, Progress, Task
from medrl.files import file_and_name, is_film, without_ending
from medrl.systems import System, get

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor

    from medrl.dicom import Pseudonyms


class CaseTask(Task[Case, Store]):
    """What is done to every case of a batch."""

    @property
    @abstractmethod
    def system(self) -> System:
        """Whose agents do it."""

    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """Model and options, in terms of JSON: results of others are other results."""


class CaseProcessor(Processor[Case]):
    """A task that has been opened; its results become folders of a store."""

    def __init__(self, system: System, store: Store) -> None:
        """Write results of a system into a store."""
        self.system = system
        self.store = store

    def write(self, job: Case, result: Any, seconds: Mapping[str, float]) -> Any:
        """Make the case done; its record, in terms of JSON."""
        began = time.perf_counter()
        folder = self.store.work_folder(job)
        try:
            record = self.save(job, result, folder)
            took = {**seconds, "writing": time.perf_counter() - began}
            if job.layout == "bids":
                record = arrange(folder, job, record, self.system)
            return self.store.finish(job, folder, record, took)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @abstractmethod
    def save(self, case: Case, result: Any, folder: Path) -> Record:
        """Write a result into an empty folder; raises MedrlError if it cannot be written."""


@dataclass(frozen=True)
class SystemTask(CaseTask):
    """Let the agents of a system do what they do to every case.

    Attributes:
        name: Of the system.
        model: Name or folder.
        options: Of the type of the system's `options`.
        device: Torch device.
        picture: Draw pictures.
        batch_size: How many cases go together.
        pseudonyms: Take patients' identities out.
    """

    name: str
    model: str
    options: Any
    device: str = "cpu"
    picture: bool = True
    batch_size: int = 1
    pseudonyms: Pseudonyms | None = None

    @property
    def system(self) -> System:
        """Whose agents do it."""
        return get(self.name)

    def open(self, threads: int, output: Store) -> CaseProcessor:
        """Load the model, for work with some threads."""
        from medrl.bundles import find

        _prepare_process(threads)
        predictor = self.system.load(find(self.model), device=self.device)
        self.system.check(predictor, self.options)
        return _SystemProcessor(self, predictor, output)

    def fingerprint(self) -> dict[str, Any]:
        """Options and model, in terms of JSON; how and where it runs makes no difference.

        Raises:
            MedrlError: If there is no such model.
        """
        from medrl.bundles import find, read_manifest

        manifest = read_manifest(find(self.model))
        weights = manifest.get("weights")
        options = asdict(self.options)
        return {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in options.items()},
            "picture": self.picture,
            "verb": self.system.verb,
            # Which key was used, not the key.
            "deidentified": self.pseudonyms and self.pseudonyms.fingerprint,
            "model": manifest["name"],
            "sha256": None if weights is None else weights["sha256"],
        }


class _SystemProcessor(CaseProcessor):
    """Reads the scans of a case, predicts, writes what the system's command writes."""

    def __init__(self, task: SystemTask, predictor: Any, store: Store) -> None:
        super().__init__(task.system, store)
        self._task = task
        self._predictor = predictor
        #: Scans that cases share, by role, with what was read.
        self._shared: dict[str, tuple[Source, MetaTensor]] = {}

    def read(self, job: Case) -> tuple[Any, Any]:
        given = parse_given(self.system.given, job)
        self.system.check_given(given, job.sources)
        scans = {role: self._scan(job, role) for role in job.sources}
        options = _options_of(self._task.options, job)
        return self.system.read(self._predictor, scans, given, options), options

    def work(
        self,
        jobs: Sequence[Case],
        data: Sequence[tuple[Any, Any]],
        report: Callable[[Progress], None],
    ) -> list[Any]:
        results: dict[int, Any] = {}
        for options in dict.fromkeys(options for _, options in data):
            alike = [number for number, (_, own) in enumerate(data) if own == options]
            found = self.system.predict(self._predictor, [data[n][0] for n in alike], options)
            results |= zip(alike, found, strict=True)
        return [
            result if isinstance(result, Exception) else (result, options)
            for result, (_, options) in zip(
                (results[number] for number in range(len(data))), data, strict=True
            )
        ]

    def save(self, case: Case, result: Any, folder: Path) -> Record:
        found, options = result
        files = self.system.save(
            found,
            folder,
            case.stem,
            options,
            picture=self._task.picture,
            pseudonyms=self._task.pseudonyms,
        )
        doubt = self.system.doubt(found)
        notes = [f"{doubt}; look at it before you use it"] if doubt else []
        notes += [line for line in found.warnings if line != doubt]
        notes += getattr(files, "remarks", ())
        pictures = [path.name for path in files.values() if path.suffix == ".png"]
        picture = pictures[0] if pictures else None
        return Record(self.system.rows(found), notes, picture, doubtful=bool(doubt))

    def _scan(self, case: Case, role: str) -> MetaTensor:
        """A scan of a case; one that is not the case's own may be that of the case before."""
        source = case.sources[role]
        known = self._shared.get(role)
        if known is not None and known[0] == source:
            return known[1]
        own = role == self.system.roles[-1]
        hidden = case.name if own else role
        scan = read_scan(
            case.here(source.path),
            hidden if case.hidden else str(source.path),
            source.series,
            films=self.system.films,
        )
        if not own:
            self._shared[role] = source, scan
        return scan


def read_scan(
    path: Path,
    label: str,
    series: str | None = None,
    *,
    may_be_blank: bool = False,
    films: bool = False,
) -> Any:
    """Read a scan without a word; what there is to say are its remarks.

    Args:
        path: File or folder.
        label: What results, remarks and errors call it.
        series: SeriesInstanceUID, where a folder holds several.
        may_be_blank: Take a scan whose voxels are all equal, such as a mask.
        films: Take films of pictures, too.

    Returns:
        A MetaTensor (C, I, J, K), or of a film of pictures a :class:`medrl.volume.film.Film`.

    Raises:
        MedrlError: If it cannot be read.
    """
    from medrl.volume.read import read

    if films and path.exists() and is_film(path):
        from medrl.volume.film import read_film

        film = read_film(path)
        film.meta["filename_or_obj"] = label
        return film
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scan = read(path, series=series, allow_constant=may_be_blank)
    scan.meta["filename_or_obj"] = label
    # Who names a scan gets it, and is told what its name says against it.
    if against := None if may_be_blank else no_scan_by_name(without_ending(path.name)):
        remark = f"by its name it is {against}: no image of anatomy"
        scan.meta["remarks"] = (*scan.meta.get("remarks", ()), remark)
    return scan


def parse_given(kind: type[Any], case: Case) -> Any:
    """What comes with a case, of the texts that a manifest or a file beside the scan gives.

    Args:
        kind: A frozen dataclass of texts, paths, and tuples of these, all with defaults.
        case: Its options are texts by name; those that are no fields are left out.

    Returns:
        An instance; paths are those of copies, where the case has some.
    """
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name in (field.name for field in fields(kind) if field.name in case.options):
        text, hint = case.options[name], hints[name]
        parts = (hint, *get_args(hint))
        file, part = file_and_name(text)
        if case.copies is not None and os.path.exists(case.here(file)):
            text = str(case.here(file)) + ("" if part is None else f":{part}")
        value: Any = Path(text) if Path in parts else text
        values[name] = (value,) if tuple in parts or Ellipsis in parts else value
    return kind(**values)


def text_options(kind: type[Any]) -> list[str]:
    """Options that are texts: these a case may come with."""
    hints = get_type_hints(kind).items()
    return [name for name, hint in hints if hint is str or set(get_args(hint)) == {str, NoneType}]


def _options_of(options: Any, case: Case) -> Any:
    """The options of a run; what a case comes with goes before."""
    own = [name for name in text_options(type(options)) if name in case.options]
    return replace(options, **{name: case.options[name] for name in own})


def _prepare_process(threads: int) -> None:
    """Let the libraries that compute use so many threads, and those that read be silent.

    What there is to say of a scan are its remarks; libraries quote odd values, which may be names.
    It is for good: for a while, one thread would undo it under another.
    """
    import numba
    import torch

    from medrl.volume.log_filter import mute_libraries

    mute_libraries()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells where it keeps its fonts
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
