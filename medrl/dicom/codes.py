"""What medrl's names are in the codes of DICOM: (value, scheme, meaning)."""

from __future__ import annotations

Code = tuple[str, str, str]

#: Designator of what no standard has a code for (PS3.16 8.2: private ones begin with 99).
SCHEME = "99MEDRL"

ANATOMY: Code = ("91723000", "SCT", "Anatomical Structure")
_ABNORMAL: Code = ("49755003", "SCT", "Morphologically Abnormal Structure")
_HIPPOCAMPUS: Code = ("5366008", "SCT", "Hippocampus")
_NEOPLASM: Code = ("108369006", "SCT", "Neoplasm")

#: Segmented property category and type (PS3.16 CID 7150, 7151) by words in a model's or a target's
#: name.
_PROPERTIES: dict[str, tuple[Code, Code]] = {
    "hippocampus": (ANATOMY, _HIPPOCAMPUS),
    "sarcoma": (_ABNORMAL, _NEOPLASM),
    "tumour": (_ABNORMAL, _NEOPLASM),
    "tumor": (_ABNORMAL, _NEOPLASM),
}


def property_codes(model: str, target: str) -> tuple[Code, Code]:
    """What kind of thing a segment is.

    Args:
        model: Name of the model.
        target: Name of the model's kind of object.

    Returns:
        Its category and type; where nothing better is known, an anatomical structure.
    """
    words = f"{target} {model}".casefold()
    for word, codes in _PROPERTIES.items():
        if word in words:
            return codes
    return ANATOMY, ANATOMY


def private_code(name: str) -> Code:
    """A code for what no standard has one for, such as a landmark of someone's own model."""
    return name, SCHEME, name
