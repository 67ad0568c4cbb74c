"""Datasets, bags and LeRobot folders as enemies: read whole, or refused in one line. Nothing hangs, and no code is run.

Each is a small valid one that is damaged in many ways. DP_ROS_DAMAGE sets the number of ways.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dp_ros.data.bags.reader import BagReader, find_bags
from dp_ros.data.episode_writer import DatasetWriter
from dp_ros.data.episodes import load, read_layout
from dp_ros.data.lerobot.exporter import export_dataset
from dp_ros.data.lerobot.importer import import_dataset
from dp_ros.ros.bags.convert import convert
from dp_ros.schema import ConvertConfig, ExportConfig, ImportConfig
from test import outcomes

WAYS = int(os.environ.get("DP_ROS_DAMAGE", "6"))
LIMIT_S = 60  # of one way; on a computer with other work beside it
Damage = Callable[..., Iterator[bytes]]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, make_episode: Any) -> Path:
    path = tmp_path_factory.mktemp("data") / "whole"
    with DatasetWriter(path, {"rate_hz": 80.0, "collect": {"task": "any", "noise": [0.0]}}) as writer:
        for i, length in enumerate((5, 9)):
            writer.append(make_episode(i, length), tried=i + 1)
        writer.finish()
    return path


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory, bag_maker: Any) -> Path:
    return bag_maker.episode(tmp_path_factory.mktemp("bags") / "whole", ticks=20)


@pytest.fixture(scope="module")
def sqlite_bag(tmp_path_factory: pytest.TempPathFactory, bag_maker: Any) -> Path:
    return bag_maker.episode(tmp_path_factory.mktemp("bags") / "whole", ticks=20, storage="sqlite3")


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory, dataset: Path) -> Path:
    pytest.importorskip("pyarrow")
    path = tmp_path_factory.mktemp("lerobot") / "whole"
    export_dataset(dataset, path, ExportConfig())
    return path


def use_dataset(path: Path) -> None:
    read_layout(path)
    whole = load(path)
    assert len(whole) < 100


def use_bag(path: Path) -> None:
    for each in find_bags([path]):
        with BagReader(each) as reader:
            for _ in reader.messages(reader.info.topics):
                pass
        if WAYS > 6:  # seconds each
            convert([each], path.parent / "converted", ConvertConfig(), jobs=1)


def use_lerobot(path: Path) -> None:
    import_dataset(path, path.parent / "imported", ImportConfig())


pytestmark = pytest.mark.slow
KINDS = {"dataset": use_dataset, "bag": use_bag, "sqlite_bag": use_bag, "lerobot": use_lerobot}


@contextmanager
def in_time() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        pytest.fail(f"takes longer than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(use: Callable[[Path], None], path: Path) -> str:
    """The line with which it is refused; empty where it can be used. Anything else fails the test."""
    for made in ("converted", "imported"):
        shutil.rmtree(path.parent / made, ignore_errors=True)
    with in_time():
        return outcomes.outcome(use, path, 1500)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes(kind: str, request: pytest.FixtureRequest, tmp_path: Path, damaged: Damage) -> None:
    whole, folder, rng = request.getfixturevalue(kind), tmp_path / "it", random.Random(0)
    shutil.copytree(whole, folder)
    assert outcome(KINDS[kind], folder) == ""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    refused = 0
    for i in range(WAYS):
        path = files[i % len(files)]
        content = path.read_bytes()
        if content:
            ways = list(damaged(content, 8, seed=i, within=600))
            path.write_bytes(rng.choice(ways))
            refused += bool(outcome(KINDS[kind], folder))
            path.write_bytes(content)
    assert refused > 0
    assert outcome(KINDS[kind], folder) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_missing_files_and_foreign_things_in_their_place(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    whole, folder = request.getfixturevalue(kind), tmp_path / "it"
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    rng = random.Random(1)
    for _ in range(WAYS):
        name, way = (
            rng.choice(names),
            rng.choice(["missing", "folder", "empty", "device", "dangling", "pipe"]),
        )
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        (folder / name).unlink()
        if way == "folder":
            (folder / name).mkdir()
        elif way == "empty":
            (folder / name).touch()
        elif way == "device":
            (folder / name).symlink_to("/dev/zero")
        elif way == "dangling":
            (folder / name).symlink_to("missing")
        elif way == "pipe":
            os.mkfifo(folder / name)
        outcome(KINDS[kind], folder)


STRANGE: list[Any] = [None, -1, 0, 2**63, 10**30, 1e308, True, "", "../../x", [], {}, [[1]], "x" * 5000]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


@pytest.mark.parametrize("kind", KINDS)
def test_strange_values_in_their_descriptions(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Each document of the folder, JSON or metadata.yaml, with another value at each of its places in turn."""
    whole, folder, rng = request.getfixturevalue(kind), tmp_path / "it", random.Random(2)
    shutil.copytree(whole, folder)
    from dp_ros.documents import parse_yaml

    documents = [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".yaml")]
    for path in documents:
        text = path.read_text()
        content = parse_yaml(text) if path.suffix == ".yaml" else json.loads(text)
        found = list(places(content))
        for place in rng.sample(found, min(len(found), max(2, 2 * WAYS // len(documents)))):
            changed = json.loads(json.dumps(content))
            parent, value = changed, rng.choice(STRANGE)
            for key in place[:-1]:
                parent = parent[key]
            if place:
                parent[place[-1]] = value
            path.write_text(json.dumps(changed if place else value))  # JSON is YAML, too
            outcome(KINDS[kind], folder)
        path.write_text(text)
