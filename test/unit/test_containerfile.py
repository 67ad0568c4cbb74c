"""Containerfile against Makefile, README and .containerignore: no engine is needed to see that they fit."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = (ROOT / "Containerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
INSTRUCTIONS = [
    line.split(maxsplit=1)
    for line in FILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def values(instruction: str) -> list[str]:
    return [words for name, words in INSTRUCTIONS if name == instruction]


def test_its_commands_are_those_of_the_readme() -> None:
    (command,) = values("CMD")
    words = json.loads(command)
    assert " ".join(words[:2]) == "make demo"
    readme = (ROOT / "README.md").read_text().partition("## Two commands")[2]
    assert readme.partition("```sh\n")[2].startswith("make demo ")
    made = [target for run in values("RUN") for target in re.findall(r"(?:^|&& *)make ([a-z]+)", run)]
    assert made == ["setup"]
    assert {*made, words[1]} <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_the_demo_installs_nothing_anew() -> None:
    """The same extras as in the image."""
    (setup,) = (run for run in values("RUN") if "make setup" in run)
    (extras,) = re.findall(r"EXTRAS=(\S+)", setup)
    assert f"EXTRAS={extras}" in json.loads(values("CMD")[0])
    known = set(re.findall(r'^        "([a-z-]+)": ', (ROOT / "setup.py").read_text(), re.MULTILINE))
    assert set(extras.split(",")) <= known


def test_it_has_the_system_packages_that_setup_would_install() -> None:
    wanted = {
        package
        for packages in re.findall(r"\$\(call apt_install,((?!packages)[a-z0-9 -]+),", MAKEFILE)
        for package in packages.split()
    }
    assert wanted
    (run,) = (run for run in values("RUN") if "apt-get install" in run)
    assert wanted | {"make", "python3-venv"} <= set(run.split())


def test_everything_that_the_build_reads_is_copied_and_not_ignored() -> None:
    copied = {name for words in values("COPY") for name in words.split()[:-1]}
    assert copied == {
        "Makefile", "setup.py", "setup.cfg", "pyproject.toml", "package.xml", "constraints.txt", "README.md",
        "resource", "config", "launch", "dp_ros", "models",
    }  # fmt: skip
    sources = re.search(r"^SOURCES := (.+?)\n\n", MAKEFILE, re.MULTILINE | re.DOTALL)
    assert sources is not None
    read = {word for word in re.findall(r"[\w.]+", sources[1]) if (ROOT / word).exists()}
    assert read <= copied
    rules = (ROOT / ".containerignore").read_text().split()
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
