"""Pseudonyms instead of identities, the same ones whenever the same key is used.

A pseudonym is a keyed hash (HMAC-SHA-256): without the key nobody can tell whose it is, or try
names out. The key stays where the results were made.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import uuid
from collections.abc import Iterable
from pathlib import Path

import pydicom
from platformdirs import user_config_path

import medrl
from medrl.errors import MedrlError

_BYTES = 32
#: UIDs of the standard itself, such as those of kinds of objects.
_STANDARD = "1.2.840.10008."
#: Dates and times that must not be empty, and may not be true.
_DUMMIES = {"DA": "19000101", "TM": "000000", "DT": "19000101000000"}
_MOST_FILES = 50_000


class Pseudonyms:
    """Replaces identities under one key."""

    def __init__(self, key: bytes) -> None:
        """Use a key that is in memory already; see :meth:`load`."""
        self._key = key

    @classmethod
    def load(cls, path: Path | None = None) -> Pseudonyms:
        """Read the key from a file; it is made if missing, for its owner's eyes only.

        Args:
            path: The file; ``medrl/deidentify.key`` in the user's configuration folder if None.

        Raises:
            MedrlError: If it cannot be read or made, or holds no key.
        """
        file = path if path is not None else default_key_file()
        try:
            if not file.exists():
                _make_key(file)
            key = bytes.fromhex(file.read_text(encoding="ascii"))
        except OSError as error:
            raise MedrlError(f"{file}: cannot hold the key: {error.strerror}") from None
        except ValueError:
            raise MedrlError(f"{file}: is no key of medrl's; name another with --key") from None
        if len(key) != _BYTES:
            raise MedrlError(f"{file}: is no key of medrl's; name another with --key")
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """Tells keys apart without giving them away."""
        return self._digest("fingerprint", "")[:6].hex()

    def case(self, name: str) -> str:
        """The pseudonym of a case, by its name."""
        return f"case-{self._digest('case', name)[:8].hex()}"

    def patient(self, header: pydicom.Dataset) -> str:
        """The pseudonym of a patient, by the identifier; by the study if there is none."""
        known = [str(header.get(tag) or "") for tag in ("IssuerOfPatientID", "PatientID")]
        if not known[1]:
            known = ["study", str(header.get("StudyInstanceUID") or "")]
        return f"medrl-{self._digest('patient', chr(0).join(known))[:8].hex()}"

    def uid(self, uid: str) -> str:
        """Another UID for one: the same for the same (PS3.15 E.1, action U)."""
        if uid.startswith(_STANDARD):
            return uid
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=5).int}"

    def clean(self, made: pydicom.Dataset) -> None:
        """Finish an object of medrl's by the Basic Application Level Confidentiality Profile.

        It refers to images by pseudonyms already and has no identity but a pseudonym; here dates
        and times become dummies, and it is said what was done (PS3.15 E.1.1, Table E.1-1).

        Args:
            made: Changed.
        """
        for element in made.iterall():
            if element.VR in _DUMMIES and element.value:
                element.value = _DUMMIES[element.VR]
        method = pydicom.Dataset()
        method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
        method.CodeMeaning = "Basic Application Confidentiality Profile"
        made.PatientIdentityRemoved = "YES"
        made.DeidentificationMethod = f"medrl {medrl.__version__}"
        made.DeidentificationMethodCodeSequence = [method]
        made.LongitudinalTemporalInformationModified = "REMOVED"

    def __repr__(self) -> str:
        return f"Pseudonyms({self.fingerprint})"

    def _digest(self, kind: str, text: str) -> bytes:
        message = f"{kind}\0{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self._key, message, hashlib.sha256).digest()


def default_key_file() -> Path:
    """Where the key is unless said otherwise."""
    return user_config_path("medrl") / "deidentify.key"


def without_paths(line: str, paths: Iterable[Path], pseudonym: str) -> str:
    """A line in which a scan's place and the names of its files are not said.

    Args:
        line: What went wrong with it.
        paths: Its files and folders.
        pseudonym: What to say instead.
    """
    names: set[str] = set()
    for path in paths:
        real = Path(os.path.realpath(path))
        names |= {str(path), str(path.absolute()), str(real), path.name}
        names |= {str(path.parent), str(path.absolute().parent), str(real.parent)}
        if path.is_dir():
            for number, file in enumerate(path.rglob("*")):
                names |= {file.name, str(file.relative_to(path))}
                if number >= _MOST_FILES:
                    break
    for name in sorted(names - {"", ".", "/"}, key=len, reverse=True):
        # A path may follow upon that of a folder with copies.
        before = "" if name.startswith(os.sep) else r"(?<!\w)"
        line = re.sub(rf"{before}{re.escape(name)}(?!\w)", pseudonym, line)
    return line


def _make_key(file: Path) -> None:
    """Write a new key, whole, unless another process was faster."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}-{secrets.token_hex(6)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(_BYTES))
        try:
            os.link(draft, file)
        except FileExistsError:
            return
    finally:
        draft.unlink(missing_ok=True)
