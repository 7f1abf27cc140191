"""Fit the confidence of `rigid-head` anew, on the validation scans of IXI.

`medrl train registration` does the same at the end of a training. The weights stay as they are;
the five numbers of the confidence in `model.json` are replaced, unrounded.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from medrl.bundles import find, read_manifest
from medrl.registration.calibrate import calibrate
from medrl.registration.model import RegistrationModel
from medrl_datasets import ixi_brain_t1


def main() -> None:
    """Fit, and write the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the data set ixi_brain_t1")
    options = parser.parse_args()
    bundle = find("rigid-head")
    model, _ = RegistrationModel.load(bundle)
    scans = [
        Path(str(entry["image"]))
        for entry in ixi_brain_t1.DATASET.datalist(options.data)["validation"]
    ]
    model = calibrate(model, scans, seed=0, progress=lambda done, total: print(done, "of", total))
    assert model.settings.confidence is not None
    manifest = read_manifest(bundle)
    manifest["settings"]["confidence"] = asdict(model.settings.confidence)
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    (bundle / "model.json").write_text(text, encoding="utf-8")
    print(model.settings.confidence)


if __name__ == "__main__":
    main()
