"""Writes the datalist that `carry-scans` is trained on: four cohorts, none by its holdout."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from medrl.files import atomic_path
from medrl_datasets import get
from medrl_datasets.sunnybrook_lv import write_cases

#: Axes that slices follow one another along, those to prefer named more often.
AXES = {
    "spine_mr_lumbar": [2, 2, 0, 1],
    "sunnybrook_lv": [2],
    "msd_hippocampus": [1, 1, 0, 2],
    "ixi_brain_t1": [0, 1, 2],
}
#: What is learned, where it is not each label by itself: of the hippocampus also the whole (0), of
#: brains the deep structures, as cortical ones have no edge to follow.
VALUES = {"msd_hippocampus": [0, 0, 1, 2], "ixi_brain_t1": list(range(1, 96))}


def main() -> None:
    """Write ``OUT/datalist.json``."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    content: dict[str, list[dict[str, object]]] = {"training": [], "validation": [], "test": []}
    for name, axes in AXES.items():
        root = (options.data / name).resolve()
        data = get(name)
        hearts = write_cases(root, options.out / name) if name == "sunnybrook_lv" else {}
        values = VALUES.get(name)
        for split, key in zip(("train", "val", "holdout"), content, strict=True):
            for subject in data.splits(root)[split]:
                files = hearts.get(subject) or data.files(root, subject)
                content[key].append(
                    {
                        "image": str(Path(files["image"]).resolve()),
                        "label": str(Path(files["label"]).resolve()),
                        "axes": axes,
                        "cohort": name,
                        **({"values": values} if values else {}),
                    }
                )
    with atomic_path(options.out / "datalist.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
