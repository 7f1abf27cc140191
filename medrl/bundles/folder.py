"""Finding, reading and writing the folder of a trained model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrl.bundles.card import render_card
from medrl.bundles.manifest import Manifest, check_manifest
from medrl.errors import MedrlError
from medrl.files import whole_folder

if TYPE_CHECKING:
    from torch import Tensor

    from medrl.bundles.guard import Guard

MANIFEST_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
LICENCE_FILE = "LICENSE"
CARD_FILE = "README.md"

_SHIPPED = Path(__file__).parent / "models"
_MANIFEST_LIMIT = 16 * 2**20
#: Tensors of fewer values, such as biases and calibrations, are stored in full.
_SMALL = 1024


@dataclass(frozen=True)
class Bundle:
    """One trained model.

    Attributes:
        name: What `--model` takes.
        path: Its folder.
        manifest: Contents of its `model.json`.
    """

    name: str
    path: Path
    manifest: Manifest


def available() -> list[Bundle]:
    """List the models that ship with medrl, by name.

    Raises:
        MedrlError: If one of them is damaged.
    """
    folders = sorted(path.parent for path in _SHIPPED.glob(f"*/{MANIFEST_FILE}"))
    return [Bundle(folder.name, folder, read_manifest(folder)) for folder in folders]


def find(name_or_dir: str | Path) -> Path:
    """Find the folder of a model.

    Args:
        name_or_dir: Name of a model that ships with medrl, or the folder of any.

    Returns:
        The folder, which has a `model.json`.

    Raises:
        MedrlError: If there is no such model.
    """
    text = str(name_or_dir)
    shipped = {path.parent.name: path.parent for path in _SHIPPED.glob(f"*/{MANIFEST_FILE}")}
    if text in shipped:
        return shipped[text]
    folder = Path(name_or_dir)
    if folder.name == MANIFEST_FILE and folder.is_file():
        return folder.parent
    if (folder / MANIFEST_FILE).is_file():
        return folder
    if folder.is_dir():
        raise MedrlError(f"{folder} is not the folder of a model: it has no {MANIFEST_FILE}")
    names = ", ".join(sorted(shipped)) or "none"
    raise MedrlError(
        f"there is no model {text!r}: name one that ships with medrl ({names}) or a model's folder"
    )


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check the `model.json` of a model.

    Args:
        folder: The model's folder.

    Returns:
        Its contents.

    Raises:
        MedrlError: If it is missing, cut off, or not what it should be.
    """
    path = Path(folder) / MANIFEST_FILE
    try:
        if path.stat().st_size > _MANIFEST_LIMIT:
            raise MedrlError(f"{path} is too large to be the description of a model")
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MedrlError(f"{path} is missing: this is not the folder of a model") from None
    except OSError as error:
        raise MedrlError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise MedrlError(f"{path} is damaged or cut off: it is not valid JSON") from None
    return check_manifest(content, source=str(path))


def read_model(folder: str | Path, *, task: str) -> tuple[Manifest, dict[str, Tensor]]:
    """Read description and weights of a model of one system.

    Args:
        folder: The model's folder.
        task: Name of the system.

    Returns:
        See :func:`read_manifest` and :func:`load_weights`.

    Raises:
        MedrlError: If a file is missing or damaged, or the model is of another system.
    """
    manifest = read_manifest(folder)
    if manifest["task"] != task:
        raise MedrlError(f"{folder} is a {manifest['task']} model, not a {task} model")
    return manifest, load_weights(folder)


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """Load the weights of a model onto the CPU.

    The file's checksum, and the name and shape of every tensor, are compared with the manifest
    first. Weights that are stored in half precision come back as float32.

    Args:
        folder: The model's folder.

    Returns:
        Tensors by name; floating-point ones float32.

    Raises:
        MedrlError: If the file is missing, cut off, or not the one that the manifest describes.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    manifest = read_manifest(folder)
    path = Path(folder) / WEIGHTS_FILE
    expected = manifest.get("weights")
    if expected is None:
        raise MedrlError(f"{Path(folder) / MANIFEST_FILE} has no checksum of the weights")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise MedrlError(f"{path} is missing: the model has no weights") from None
    except OSError as error:
        raise MedrlError(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != expected["sha256"].lower():
        raise MedrlError(
            f"{path} is damaged, cut off or of another model: its checksum is not the one in "
            f"{MANIFEST_FILE}"
        )
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise MedrlError(f"{path} is not a safetensors file: {error}") from None
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected["tensors"]:
        odd = sorted(
            name
            for name in shapes.keys() | expected["tensors"].keys()
            if shapes.get(name) != expected["tensors"].get(name)
        )
        raise MedrlError(f"{path} does not hold the tensors that {MANIFEST_FILE} lists: {odd[0]!r}")
    return {
        name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def save(
    folder: str | Path,
    tensors: Mapping[str, Tensor],
    manifest: Mapping[str, Any],
    *,
    licence: str | None = None,
    card: str | None = None,
    half: bool = True,
) -> Path:
    """Write a model; the folder appears only when it is whole.

    Args:
        folder: Where to; an older model there is replaced.
        tensors: Weights by name.
        manifest: Contents of `model.json`; the entry ``weights`` is filled in.
        licence: Text of the licence file; left out if None.
        card: Text of `README.md`; drawn up from the manifest if None.
        half: Store large floating-point tensors as float16 where none of their values would
            overflow. Small ones take no room: what a confidence is made of is not rounded.

    Returns:
        The folder.

    Raises:
        MedrlError: If the manifest is not valid, a weight is not finite, or the folder cannot be
            written or holds something else.
    """
    from safetensors.torch import save as serialize

    target = Path(folder)
    stored = {name: _compact(name, tensor, half) for name, tensor in tensors.items()}
    content = serialize(stored)
    shapes = {name: list(tensor.shape) for name, tensor in stored.items()}
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "tensors": shapes}
    checked = check_manifest({**manifest, "weights": entry}, source=str(target / MANIFEST_FILE))
    try:
        text = json.dumps(checked, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise MedrlError(
            f"the description of the model cannot be written as JSON: {error}"
        ) from None

    if (
        target.exists()
        and not (target / MANIFEST_FILE).is_file()
        and (not target.is_dir() or any(target.iterdir()))
    ):
        raise MedrlError(f"{target} exists and is not the folder of a model: choose another")
    with whole_folder(target) as new:
        (new / WEIGHTS_FILE).write_bytes(content)
        (new / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
        (new / CARD_FILE).write_text(
            render_card(checked) if card is None else card, encoding="utf-8"
        )
        if licence is not None:
            (new / LICENCE_FILE).write_text(licence, encoding="utf-8")
    return target


def save_guard(
    folder: str | Path,
    guard: Guard | None,
    measured: Mapping[str, Tensor],
    *,
    out: str | Path | None = None,
) -> Path:
    """Write a model once more with another guard; everything else of it stays as it is.

    Args:
        folder: The model's folder.
        guard: What its training scans were like.
        measured: What its encoder saw there, and whatever else was fitted anew, by name.
        out: Where to; the model's own folder if None.

    Returns:
        The folder.

    Raises:
        MedrlError: If the model is damaged, or cannot be written.
    """
    from medrl.nets.familiarity import PREFIX

    source = Path(folder)
    kept = {n: tensor for n, tensor in load_weights(source).items() if not n.startswith(PREFIX)}
    texts = {name: source / name for name in (LICENCE_FILE, CARD_FILE)}
    licence, card = (
        path.read_text(encoding="utf-8") if path.is_file() else None for path in texts.values()
    )
    manifest = {**read_manifest(source), **({} if guard is None else {"guard": asdict(guard)})}
    return save(out or source, {**kept, **measured}, manifest, licence=licence, card=card)


def _compact(name: str, tensor: Tensor, half: bool) -> Tensor:
    """A tensor ready to be stored; float16 if asked for, it is large and no value overflows."""
    import torch

    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor.clone()
    if not bool(torch.isfinite(tensor).all()):
        raise MedrlError(f"the weights {name!r} are not all finite: the training has diverged")
    if not half or tensor.numel() < _SMALL:
        return tensor.float().clone()
    small = tensor.half()
    return small.clone() if bool(torch.isfinite(small).all()) else tensor.float().clone()
