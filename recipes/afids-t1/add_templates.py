"""Adds the T1 templates with expert points, all but Colin27, to the training scans of a datalist.

They are few: each is there as often as says `TIMES`, and every copy is turned, scaled and deformed
in its own way.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from carry import TEMPLATES

from medrl.files import atomic_path
from medrl.volume.points import write_markups
from medrl_datasets import afids_templates

#: How often each template counts among some 140 training scans.
TIMES = 4


def main() -> None:
    """Change the datalist in place."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("datalist", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    options = parser.parse_args()
    root = options.data / "afids_templates"
    points = afids_templates.DATASET.landmarks(root)
    content = json.loads(options.datalist.read_text())
    for name in TEMPLATES:
        image = (root / "images" / f"{name}.nii.gz").resolve()
        markups = options.datalist.absolute().parent / f"{name}.mrk.json"
        write_markups(markups, points[name], name=name)
        content["training"] += [{"image": str(image), "landmarks": markups.name}] * TIMES
    with atomic_path(options.datalist) as temporary:
        temporary.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
