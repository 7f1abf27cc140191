"""What `medrl info` tells of a scan, as data and as text."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrl.cli import explain
from medrl.errors import MedrlError
from medrl.volume.describe import Description, describe

if TYPE_CHECKING:
    from monai.data.meta_tensor import MetaTensor
    from numpy.typing import NDArray

    from medrl.bundles.fit import Fit
    from medrl.systems import System
    from medrl.volume.describe.modality import Modality

#: Voxels of a scan that is not read to tell of it (1 GiB as float32).
_MOST_VOXELS = 2**28
_SAMPLE = 200_000
_SIDES = {"L": "left", "R": "right", "A": "front", "P": "back", "S": "head", "I": "feet"}
_MOST_NAMES = 6


def scan_facts(
    path: Path, *, series: str | None = None, header_only: bool = False
) -> dict[str, Any]:
    """What there is to know of a scan, in terms of JSON.

    Args:
        path: File or folder.
        series: SeriesInstanceUID of the one that is meant.
        header_only: Do not look at voxels.

    Returns:
        Facts by name. ``error`` says why the scan cannot be read, and is None if it can; what is
        not known is left out.

    Raises:
        MedrlError: If there is no such file.
    """
    known = describe(path, series=series)
    facts: dict[str, Any] = {"path": str(path), **_of_file(known), "error": None}
    if known.several:
        facts["series"] = [
            {"uid": one.uid, "modality": one.modality, "files": len(one.files)}
            for one in known.series
        ]
        return facts
    header, remarks = known.header, list(known.header.doubts)
    count = math.prod(header.shape) * header.channels
    if header.stored:
        facts["stored"] = header.stored
    facts["header"] = dict(header.facts)
    affine, shape, channels = header.affine, header.shape, header.channels
    scan = None
    if header_only:
        if header.modality:
            facts["modality"] = {"name": header.modality, "guessed": False, "source": "its header"}
    elif count > _MOST_VOXELS:
        remarks.append(f"its {count} voxels would take {count / 2**28:.0f} GiB: not looked at")
    else:
        from medrl.volume.read import read

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scan = read(path, series=series, allow_constant=True)
        except Exception as error:
            facts["error"] = explain(error)
        else:
            affine, shape, channels = np.asarray(scan.affine), tuple(scan.shape[1:]), len(scan)
            remarks = [str(one) for one in scan.meta["remarks"]] + remarks
    facts |= _of_grid(shape, channels, affine)
    remarks += _doubts(known, shape, channels, affine)
    facts["remarks"] = list(dict.fromkeys(remarks))
    return facts if scan is None else facts | _of_values(scan, path, header.modality, facts)


def render(facts: dict[str, Any]) -> Iterator[str]:
    """The facts as lines of text."""
    yield facts["path"]
    if "format" not in facts:
        return
    packed = f", {facts['packed']}" if facts.get("packed") else ""
    yield _row("format", f"{facts['format']}{packed}, {_size(facts['bytes'])}")
    if facts.get("hint"):
        yield _row("", facts["hint"])
    for one in facts.get("series", ()):
        yield _row("series", f"{one['uid']} ({one['modality'] or '?'}, {one['files']} files)")
    if facts.get("shape"):
        voxel = f" of {_times(facts['spacing_mm'])} mm" if "spacing_mm" in facts else ""
        more = f", {facts['channels']} channels or frames" if facts["channels"] > 1 else ""
        yield _row("grid", f"{_times(facts['shape'])} voxels{voxel}{more}")
    if "extent_mm" in facts:
        yield _row("extent", f"{_times(facts['extent_mm'])} mm")
    if "orientation" in facts:
        sides = ", ".join(_SIDES[code] for code in facts["orientation"])
        oblique = facts["oblique_degrees"]
        turned = f"; oblique by {oblique:.1f} degrees" if oblique >= 0.05 else ""
        yield _row("orientation", f"{facts['orientation']} (axes run to {sides}){turned}")
    if "modality" in facts:
        said = facts["modality"]
        guess = "a guess: " if said["guessed"] else ""
        yield _row("modality", f"{said['name']} ({guess}{said['source']})")
    if "values" in facts:
        values = facts["values"]
        text = f"{values['min']:.6g} to {values['max']:.6g}, median {values['median']:.6g}"
        yield _row("values", f"{text}; stored as {facts.get('stored', 'unknown')}")
    if "labels" in facts:
        yield _row("labels", _labels(facts["labels"]))
    if facts.get("header"):
        yield _row("header", "; ".join(f"{key}: {said}" for key, said in facts["header"].items()))
    for remark in facts.get("remarks", ()):
        yield _row("note", remark)
    for model in facts.get("models", ()):
        answer = {True: "yes", False: "no", None: "not sure"}[model["fits"]]
        why = "; ".join(model["reasons"])
        channel = f", as {' or '.join(model['channels'])}" if model["channels"] else ""
        text = f"{answer}{channel}{f': {why}' if why else ''}"
        yield _row("model", f"{model['name']} ({model['verb']}): {text}")


def _row(name: str, text: str) -> str:
    return f"  {name:<12}{' '.join(text.split())}"


def _of_file(known: Description) -> dict[str, Any]:
    content = known.content
    facts: dict[str, Any] = {"format": content.kind or "unknown", "bytes": known.bytes}
    if content.gzips:
        facts["packed"] = "gzip" if content.gzips == 1 else f"gzip, {content.gzips} times"
    if content.advice:
        facts["hint"] = content.advice
    return facts


def _of_grid(
    shape: tuple[int, ...], channels: int, affine: NDArray[np.float64] | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"shape": list(shape), "channels": channels}
    if affine is None or len(shape) != 3:
        return facts
    from medrl.volume.describe.geometry import obliqueness_deg, orientation
    from medrl.volume.space import spacing_of

    spacing = spacing_of(affine)
    return facts | {
        "spacing_mm": [round(float(x), 6) for x in spacing],
        "extent_mm": [round(float(x), 4) for x in spacing * shape],
        "orientation": orientation(affine),
        "oblique_degrees": round(obliqueness_deg(affine), 3),
        "affine": np.asarray(affine).tolist(),
    }


def _doubts(
    known: Description, shape: tuple[int, ...], channels: int, affine: NDArray[np.float64] | None
) -> list[str]:
    """What is odd in the grid, and in what else is said of the scan."""
    from medrl.volume.describe import geometry, sidecar
    from medrl.volume.describe.dicom import spacing_doubts

    if affine is None or len(shape) != 3:
        return []
    found = geometry.doubts(shape, affine)
    if known.series:
        return found + spacing_doubts(known.header, float(np.linalg.norm(affine[:3, 2])))
    content = sidecar.read_sidecar(known.path)
    if content:
        step = known.header.frame_step_s
        found += sidecar.contradictions(content, known.path, shape, channels, affine, step)
    return found


def _of_values(scan: MetaTensor, path: Path, stated: str, facts: dict[str, Any]) -> dict[str, Any]:
    """What the voxels tell: values, what kind of image it is, and the models that it fits."""
    from medrl.volume.describe.modality import contrast_by_name, modality_of

    voxels = scan.numpy()
    sample = voxels.ravel()[:: max(1, voxels.size // _SAMPLE)]
    low, high = float(voxels.min()), float(voxels.max())
    kind = modality_of(scan, path, stated)
    found: dict[str, Any] = {
        "values": {"min": low, "max": high, "median": float(np.median(sample))},
        "modality": {"name": kind.name, "guessed": kind.guessed, "source": kind.source},
    }
    if low == high:
        found["remarks"] = [*facts["remarks"], f"every voxel is {low:g}: the scan is blank"]
    if kind.labels:
        found["labels"] = _regions(path, voxels)
    return found | {"models": _models(scan, kind, contrast_by_name(path))}


def _regions(path: Path, voxels: NDArray[Any]) -> dict[str, Any]:
    """The regions of a label map, and where their names are from."""
    from medrl.volume.label_names import find_label_names
    from medrl.volume.read import read_labels

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            voxels = read_labels(path).numpy()
    except MedrlError:
        pass  # such as a DICOM series; its numbers are those of any scan
    numbers = [int(number) for number in np.unique(voxels) if number != 0]
    named = find_label_names(path, numbers)
    names = {} if named is None else {n: named.names[n] for n in numbers if n in named.names}
    return {
        "numbers": numbers,
        "names": {str(number): name for number, name in names.items()},
        "names_from": None if named is None else str(named.source),
    }


def _labels(labels: dict[str, Any]) -> str:
    numbers, names = labels["numbers"], labels["names"]
    text = f"{len(numbers)} regions"
    if numbers:
        text += f", {numbers[0]} to {numbers[-1]}"
    if names:
        first = ", ".join(list(names.values())[:_MOST_NAMES])
        text += f": {first}{', ...' if len(names) > _MOST_NAMES else ''}"
        text += f" (names of {labels['names_from']})"
    return text


def _models(scan: MetaTensor, kind: Modality, contrast: str) -> list[dict[str, Any]]:
    """Which trained models a scan fits; those that need nothing more are run where it is open."""
    from medrl.bundles import available, guard_of
    from medrl.bundles.fit import fit_of
    from medrl.systems import get

    found = []
    modality = "" if kind.guessed else kind.name
    for bundle in available():
        system = get(bundle.manifest["task"])
        fit = fit_of(
            bundle.manifest, scan, labels=kind.labels, modality=modality, contrast=contrast
        )
        if fit.fits is None and system.several and guard_of(bundle.manifest) is not None:
            fit = _by_running(system, bundle.path, scan) or fit
        found.append(
            {
                "name": bundle.name,
                "verb": system.verb,
                "fits": fit.fits,
                "reasons": list(fit.reasons),
                "channels": list(fit.channels),
            }
        )
    return found


def _by_running(system: System, bundle: Path, scan: MetaTensor) -> Fit | None:
    """Whether a model finds that it was made for a scan; None if it cannot say."""
    from medrl.bundles.fit import Fit

    options = system.options()
    try:
        predictor = system.load(bundle, device="cpu")
        data = system.read(predictor, {system.roles[-1]: scan}, system.given(), options)
        (result,) = system.predict(predictor, [data], options)
        unfit = (*getattr(result, "instead", ()), *result.unfit)
    except Exception:
        return None  # what else is known of the scan is told all the same
    return Fit(not unfit, unfit)


def _times(numbers: list[float]) -> str:
    return " x ".join(
        f"{number:.4g}" if isinstance(number, float) else str(number) for number in numbers
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        size /= 1000
    return f"{size:.3g} GB"
