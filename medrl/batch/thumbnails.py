"""Small copies of pictures, for the report; made when a case ends, so that the report is quick."""

from __future__ import annotations

from pathlib import Path

from medrl.files import atomic_path

#: Width and height that they fit into, in pixels.
SIZE = (420, 260)


def make_thumbnail(picture: Path, target: Path) -> bool:
    """Write a small JPEG of a picture.

    Args:
        picture: PNG or JPEG.
        target: File to write; removed if there is no picture.

    Returns:
        Whether there is one.

    Raises:
        MedrlError: If it cannot be written.
    """
    from PIL import Image

    target.unlink(missing_ok=True)
    try:
        with Image.open(picture) as content:
            small = content.convert("RGB")
    except OSError:
        return False
    small.thumbnail(SIZE)
    with atomic_path(target) as temporary:
        small.save(temporary, "JPEG", quality=75)
    return True
