"""A process of a parallel test run that dies is told of with its signal and its stacks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
DIES = """
import ctypes, os, signal

def test_reads_where_there_is_nothing():
    ctypes.string_at(0)

def test_is_killed():
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_summary_says_what_a_process_died_of(tmp_path: Path) -> None:
    plugin = (ROOT / "test" / "crashes.py").read_text()
    register = f"    config.pluginmanager.register(Crashes(Path({str(tmp_path)!r})))\n"
    (tmp_path / "conftest.py").write_text(f"{plugin}\n\ndef pytest_configure(config):\n{register}")
    (tmp_path / "test_dies.py").write_text(DIES)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "--rootdir", str(tmp_path), "-c", os.devnull]
    found = subprocess.run(
        [*command, "--import-mode=importlib", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = found.stdout
    assert found.returncode == 1, said + found.stderr
    assert "ended by signal 11, Segmentation fault" in said
    assert "in test_reads_where_there_is_nothing" in said
    assert "ended by signal 9, Killed\nno stacks were written" in said
