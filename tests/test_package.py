import importlib.metadata
import subprocess
import sys

import pytest

import medrl


def test_version_is_that_of_the_installed_package() -> None:
    assert medrl.__version__ == importlib.metadata.version("medrl")


def test_importing_medrl_loads_no_library() -> None:
    code = (
        "import sys, medrl; dir(medrl); "
        "print(*{'torch', 'monai', 'numpy', 'torchrl', 'nilearn'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Detektor"):
        _ = medrl.Detektor
