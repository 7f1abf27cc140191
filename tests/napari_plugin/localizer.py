"""A localization system whose agents know the answer."""

import math

import numpy as np

from medrl.localization.answer import Box, Localization
from medrl.systems import System
from medrl.trajectory import Recording, Step

STEPS = 5
#: RAS mm, in a scan of 96 mm about the world's origin; the last one is absent.
BOXES = {
    "L3": ((-20.0, -10.0, 5.0), (10.0, 12.0, 25.0)),
    "L4": ((-18.0, -12.0, -20.0), (12.0, 10.0, 0.0)),
    "L5": ((-15.0, -14.0, -90.0), (15.0, 8.0, -70.0)),
}
SURE = {"L3": 0.93, "L4": 0.4, "L5": 0.0}
ABSENT = "L5"


def corners_of(name):
    return np.array(BOXES[name])


class Scripted:
    """Its agents begin with the middle of the scan and grow to the answer."""

    def localize(self, scan, *, targets=None, progress=None, watch=None):
        names = tuple(targets or BOXES)
        recording = Recording()
        goals = np.array([BOXES[name] for name in names])
        for number in range(STEPS):
            boxes = goals * (number + 1) / STEPS
            step = Step(
                names=names,
                starts=np.zeros(len(names), dtype=int),
                positions_world=boxes.mean(axis=1),
                scales_mm=np.full(len(names), 2.0),
                actions=np.zeros(len(names), dtype=int),
                values=np.linspace(0, 1, len(names)),
                boxes_world=boxes,
            )
            recording.add(step)
            if watch:
                watch(step)
            if progress:
                progress(number + 1, STEPS)
        boxes = tuple(
            Box(name, corners_of(name), "absent" if name == ABSENT else "found", SURE[name])
            for name in names
        )
        made_by = {"scan": "", "model": "scripted", "version": "1", "seed": 0}
        return Localization(boxes, recording.trajectory("localization", made_by), (), 0.2, scan)


class ScriptedSystem(System):
    """As the registry knows it."""

    name, verb, summary = "localization", "localize", "box organs"

    def contents(self, manifest):
        return {"targets": list(BOXES)}

    def load(self, bundle, *, device="cpu"):
        return Scripted()

    def predict(self, predictor, data, options, *, progress=None, watch=None):
        return [predictor.localize(scan, progress=progress, watch=watch) for scan in data]

    def rows(self, result):
        return [
            {"name": box.name, "confidence": box.confidence or math.nan} for box in result.boxes
        ]
