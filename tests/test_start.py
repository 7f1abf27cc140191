"""What a command loads before it begins, and that MONAI stays whole for others."""

import json
import subprocess
import sys

import pytest

_NAMES = """
import json, monai
monai.networks.nets.UNet
modules = {name: module for name, module in sys.modules.items() if name.startswith("monai")}
specs = {name: module.__spec__.name for name, module in modules.items() if module.__spec__}
assert all(name == spec for name, spec in specs.items())
print(json.dumps({name: sorted(vars(module)) for name, module in modules.items()}))
"""


def run(code: str) -> str:
    """What a fresh interpreter prints last."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True, check=True
    )
    return done.stdout.strip().split("\n")[-1]


def test_help_loads_nothing_heavy() -> None:
    code = "from medrl.cli import main; main(['--help']); print(sorted(sys.modules))"
    loaded = run(code)
    for package in ("torch", "monai", "numpy", "matplotlib"):
        assert f"'{package}'" not in loaded


def test_inference_loads_only_parts_of_monai_and_torch() -> None:
    loaded = run(
        "import torch, medrl\n"
        "from monai.data.meta_tensor import MetaTensor\n"
        "from medrl.registration.model import RegistrationModel\n"
        "from medrl.seednet.model import SeedModel\n"
        "from medrl.bundles import find\n"
        "detector = medrl.LandmarkDetector.load('brain-t1')\n"
        "affine = torch.diag(torch.tensor([4.0, 4, 4, 1]))\n"
        "scan = MetaTensor(torch.rand(1, 40, 40, 40), affine=affine)\n"
        "detector.model.settings.preprocessing(scan)\n"
        "RegistrationModel.load(find('rigid-head'))\n"
        "SeedModel.load(find('hippocampus-t1'))\n"
        "print(sorted(sys.modules))"
    )
    for module in ("monai.networks", "monai.transforms.spatial", "sympy", "pandas"):
        assert f"'{module}'" not in loaded


@pytest.fixture(scope="module")
def names() -> dict[str, list[str]]:
    """What each module of MONAI holds if it is imported without medrl."""
    return json.loads(run(_NAMES))


@pytest.mark.parametrize(
    "first",
    [
        "from monai.transforms import LoadImaged",
        "from monai.networks.nets import UNet",
        "import monai; dir(monai)",
        "from medrl import _monai; _monai._NEEDED = ('monai.elsewhere',)",
    ],
)
def test_monai_is_whole_for_others(names: dict[str, list[str]], first: str) -> None:
    """Whatever is asked for first, and even if MONAI cannot be loaded by parts."""
    assert json.loads(run(f"import medrl.volume\n{first}\n{_NAMES}")) == names
