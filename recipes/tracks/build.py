"""Builds the model `tracks`: simulated films, two flies and ten zebrafish; 10 minutes, one core."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

from medrl.tracking.objects.simulated import Film
from medrl.tracking.objects.train import TrainSettings, train
from medrl_datasets import tracking_video as videos

HERE = Path(__file__).parent


def training_films(root: Path) -> list[Film]:
    """The films of the training split."""
    found = []
    for name in videos.DATASET.splits(root)["train"]:
        frames = videos.film(root, name)
        shape = (len(frames), frames.shape[2], frames.shape[3], frames.shape[4])
        found.append(Film(videos.tracks(root, name), {}, frames, (1.0, 1.0, 1.0), shape))
    return found


def main() -> None:
    """Train, and write ``OUT/tracks``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDRL_DATA", "../shared/data"))
    parser.add_argument("--imitation-steps", type=int, default=TrainSettings.imitation_steps)
    parser.add_argument("--value-steps", type=int, default=TrainSettings.value_steps)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    settings = replace(
        TrainSettings(name="tracks", resume=options.resume),
        imitation_steps=options.imitation_steps,
        value_steps=options.value_steps,
    )
    folder = train(
        settings,
        out=options.out,
        films=training_films(options.data / videos.CARD.name),
        card=json.loads((HERE / "card.json").read_text(encoding="utf-8")),
        licence=(HERE / "LICENSE").read_text(encoding="utf-8"),
        report=lambda *told: print(*told, flush=True),
    )
    print(folder)


if __name__ == "__main__":
    main()
