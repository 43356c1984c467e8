"""The package without torch: importable, and clear about what training needs."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["torch", "psutil"])
def test_training_without_its_packages(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
import pufferlib_cy
pufferlib_cy.make("cartpole").reset(seed=0)
try:
    import pufferlib_cy.train
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith('pip install "pufferlib_cy[train]"'), done.stdout
    assert missing in done.stdout


def test_the_package_itself_does_not_import_torch():
    code = "import sys, pufferlib_cy; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
