"""Writes the datalist that `carry-films` is trained on: films of DAVIS, none of its holdout."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from medrl.files import atomic_path
from medrl_datasets.davis2016_small import DATASET


def main() -> None:
    """Write ``OUT/datalist.json``; with --without also films of the training split are left out."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--without", nargs="*", default=[], metavar="FILM")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    root = (options.data / DATASET.card.name).resolve()
    splits = DATASET.splits(root)
    content = {"training": splits["train"], "validation": splits["val"], "test": splits["holdout"]}
    listed = {
        key: [
            {name: str(path) for name, path in DATASET.files(root, film).items()}
            for film in films
            if film not in options.without
        ]
        for key, films in content.items()
    }
    with atomic_path(options.out / "datalist.json") as temporary:
        temporary.write_text(json.dumps(listed, indent=1))


if __name__ == "__main__":
    main()
