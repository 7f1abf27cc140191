"""Every model that ships runs where nothing of the extra `train` is installed."""

import subprocess
import sys

RUN = """
import sys
for name in ("torchrl", "tensordict", "gymnasium", "tensorboard"):
    sys.modules[name] = None
import medrl
head = medrl.read(sys.argv[1])
assert len(medrl.load("brain-t1").detect(head).landmarks) == 25
assert medrl.load("hippocampus-t1").segment(head, ["fg:-25.5,-21,-14"]).mask.sum() > 100
assert medrl.load("rigid-head").register(head, head).trusted
medrl.load("sarcoma-pet-ct").session()
"""


def test_every_model_runs_without_the_packages_that_train(data_root):
    scan = data_root / "afids_templates" / "images" / "MNI152Lin_T1w.nii.gz"
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(scan)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
