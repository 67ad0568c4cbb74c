"""Import of torchvision, also where its operators were built for another torch."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def run(script: str) -> str:
    """Output of `script` in a new process: this one may have imported torchvision already."""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_torchvision_models_import_in_a_fresh_process() -> None:
    script = """
from dp_ros.policy.torchvision_ops import import_torchvision_models
models = import_torchvision_models()
assert models is import_torchvision_models()
print(type(models.resnet18(weights=None)).__name__)
"""
    assert run(script) == "ResNet"
