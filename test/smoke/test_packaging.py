"""Files of an install: the marker by which ROS finds a package, and the presets in share/."""

import configparser
import importlib.metadata
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    "dp_ros",
    "policy_node",
    "metaworld_bridge",
    "recorder_node",
    "teleop_node",
    "teleop_keyboard",
    "stand_in",
    "policy_watchdog",
    "watch_node",
}


def visible_files(folder: Path) -> set[str]:
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return {p.as_posix() for p in paths if not any(part.startswith((".", "__pycache__")) for part in p.parts)}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as pip installs it, from a copy, so that the build leaves nothing in the checkout."""
    pytest.importorskip("pip")
    setuptools_major = int(importlib.metadata.version("setuptools").split(".")[0])
    if setuptools_major <= 70 and not find_spec("wheel"):
        pytest.skip("needs the wheel package or setuptools 71")
    source = tmp_path_factory.mktemp("source")
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, source)
        elif path.name in {"dp_ros", "launch", "config", "resource"}:
            shutil.copytree(path, source / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    # A stand-in, because packing the real weights takes longer than the rest.
    (source / "models" / "tiny" / ".cache").mkdir(parents=True)
    (source / "models" / "tiny" / "config.json").write_text("{}")
    (source / "models" / "tiny" / ".cache" / "hidden").write_text("")

    prefix = tmp_path_factory.mktemp("prefix")
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--no-compile"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", prefix, source], cwd=source, check=True
    )
    return prefix


def test_ament_index_finds_the_package(prefix: Path) -> None:
    assert (prefix / "share/ament_index/resource_index/packages/dp_ros").is_file()
    assert (prefix / "share/dp_ros/package.xml").is_file()


@pytest.mark.parametrize("folder", ["launch", "config"])
def test_every_shared_file_is_installed_in_its_sub_folder(prefix: Path, folder: str) -> None:
    files = visible_files(ROOT / folder)
    assert files
    assert visible_files(prefix / "share/dp_ros" / folder) == files


def test_models_are_installed_without_hidden_files(prefix: Path) -> None:
    files = [p for p in (prefix / "share/dp_ros/models").rglob("*") if p.is_file()]
    assert files == [prefix / "share/dp_ros/models/tiny/config.json"]


def test_tests_are_not_installed(prefix: Path) -> None:
    assert {p.name for p in prefix.iterdir() if p.suffix != ".dist-info"} == {"bin", "dp_ros", "share"}


def test_scripts_name_modules_that_exist(prefix: Path) -> None:
    entry_points = configparser.ConfigParser()
    entry_points.read(next(prefix.glob("dp_ros-*.dist-info/entry_points.txt")))
    scripts = dict(entry_points["console_scripts"])
    assert set(scripts) == SCRIPTS
    for script, target in scripts.items():
        assert (prefix / "bin" / script).is_file()
        module = prefix / target.split(":")[0].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__init__.py").is_file(), target


def test_pip_and_ros_agree_on_version_and_license(prefix: Path) -> None:
    (installed,) = importlib.metadata.distributions(path=[str(prefix)])
    manifest = ET.parse(ROOT / "package.xml").getroot()
    assert installed.version == manifest.findtext("version")
    license_key = "License-Expression" if "License-Expression" in installed.metadata else "License"
    assert installed.metadata[license_key] == manifest.findtext("license")


def test_pages_and_their_templates_are_installed(prefix: Path) -> None:
    """A file that is not Python is left out unless setup.py names it."""
    files = {file for file in visible_files(ROOT / "dp_ros") if not file.endswith((".py", ".pyc"))}
    assert {"evaluation/report/templates/report.html.j2", "ros/watch/page.html"} <= files
    assert files <= visible_files(prefix / "dp_ros")
