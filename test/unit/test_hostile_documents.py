"""Parameter files, sentences, settings and results as enemies: data or one line, and no code is run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dp_ros.cli import main
from dp_ros.cli.compare import read_report
from dp_ros.evaluation.archive import join, split
from dp_ros.evaluation.model_results import RESULTS, read_results, write_results
from dp_ros.schema import RuntimeConfig, TrainConfig, load_sentences, parse
from dp_ros.schema.base import set_dotted
from dp_ros.schema.params_file import node_parameters
from dp_ros.schema.sources import load_yaml
from test.outcomes import outcome

WAYS = int(os.environ.get("DP_ROS_DAMAGE", "60"))
Damage = Callable[..., Iterator[bytes]]

PARAMETERS = """/**:
  ros__parameters:
    mode: realtime
    gate: {workspace_low_m: [-0.3, 0.3, 0.0], workspace_high_m: [0.3, 0.9, 0.5], max_speed_m_s: 0.4}
    ramp_s: &a 1e0
    camera: *a
"""
SENTENCES = "drawer-open-v3:\n  known: [open the drawer, pull it]\n  held_out: [the drawer, please]\n"
SETTINGS = "batch_size: 8\nlr: 3e-4\npolicy:\n  unet: {channels: [32, 64]}\n  rate_hz: 10.0\n"
LETTERS = "abcdefghi"
BOMBS = (
    "!!python/object/apply:os.mkdir [RAN]\n",
    "a: !!python/object/new:os.mkdir [RAN]\n",
    "/**:\n  ros__parameters: !!python/object/apply:os.mkdir [RAN]\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in pairwise(LETTERS)),
    "[" * 50_000,
    "- " * 5_000,
    "a: &x {b: *x}\n",
    "/**: &x {ros__parameters: {a: *x}}\n",
    "? [a, b]\n: c\n",
    "/**: {ros__parameters: {1: 2, null: 3, [4]: 5}}\n",
    "\0\0\0",
    "a" * 100_000,
    "drawer-open-v3: {known: [3, null, [a]]}\n",
    "/**: {ros__parameters: {mode: " + "9" * 10_000 + "}}\n",
    "batch_size: 1e999\nlr: .nan\npolicy: {rate_hz: .inf}\n",
    "batch_size: -0x" + "f" * 5_000 + "\n",
)  # fmt: skip


def use_parameters(path: Path) -> None:
    values: dict[str, Any] = {}
    for name, value in node_parameters(path, "/policy_node").items():
        set_dotted(values, name, value)
    parse(RuntimeConfig, values, where=str(path))


USES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "parameters": (PARAMETERS, use_parameters),
    "sentences": (SENTENCES, load_sentences),
    "settings": (SETTINGS, lambda path: load_yaml(TrainConfig, path)),
}


@pytest.mark.parametrize("kind", USES)
def test_damaged_text_is_data_or_one_line(kind: str, tmp_path: Path, damaged: Damage) -> None:
    (text, use), path = USES[kind], tmp_path / "file.yaml"
    refused = 0
    for content in damaged(text.encode(), WAYS):
        path.write_bytes(content)
        refused += bool(outcome(use, path))
    assert refused > WAYS // 6


@pytest.mark.parametrize("kind", USES)
@pytest.mark.parametrize("number", range(len(BOMBS)))
def test_bombs_are_refused_in_one_line(kind: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(BOMBS[number].replace("RAN", str(tmp_path / "ran")))
    assert outcome(USES[kind][1], path)
    assert not (tmp_path / "ran").exists()


STRANGE: list[Any] = [
    None,
    -1,
    2**63,
    10**400,
    1e308,
    float("nan"),
    True,
    "",
    "../../x",
    [],
    {},
    [[1]],
    "x" * 9999,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def strange(content: Any) -> Iterator[Any]:
    """The content with a strange value at each of its places in turn."""
    for i, place in enumerate(places(content)):
        for value in STRANGE[i % 4 :: 4]:
            changed = json.loads(json.dumps(content))
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            if place:
                parent[place[-1]] = value
            yield changed if place else value


REPORT = {
    "task": "drawer-open-v3", "checkpoint": "a", "transport": "in-process", "policy_seed": 0, "episodes": 2,
    "success_rate": 0.5, "wilson_low": 0.1, "wilson_high": 0.9,
    "per_episode": [{"seed": 0, "success": True, "steps": 9}, {"seed": 1, "success": False, "steps": 200}],
    "plan_ms": {"p50": 1.0, "p99": 2.0}, "settings": {"max_steps": 200, "engine": "torch"},
    "provenance": {"weights_sha256": "0"},
}  # fmt: skip


def test_reports_to_compare_are_compared_or_refused_in_one_line(
    tmp_path: Path, damaged: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, other = json.dumps(REPORT), tmp_path / "b.json"
    (tmp_path / "a.json").write_text(whole)
    spoilt = [json.dumps(each).encode() for each in strange(REPORT)]
    spoilt += [*damaged(whole.encode(), WAYS), b"[" * 100_000, b"\xff\xfe"]
    for i, content in enumerate(spoilt):
        other.write_bytes(content)
        outcome(read_report, other)
        if i % 8:
            continue
        code = main(["compare", str(tmp_path / "a.json"), str(other)])
        said = capsys.readouterr().err
        assert code in (0, 1, 2), content[:300]
        assert (code == 0) == (said == ""), content[:300]
        assert said.count("\n") <= 1
        assert len(said) < 1500


def test_results_beside_weights_are_read_or_refused_in_one_line(tmp_path: Path, damaged: Damage) -> None:
    rows = [
        {
            "transport": "ros", "first_seed": 0, "episodes": 2, "successes": 1, "plan_p50_ms": 1.0, "plan_p99_ms": None,
            "max_steps": 200, "sampler": "ddim", "sampler_iterations": 3, "policy_seed": 0,
        }
    ]  # fmt: skip

    def use(path: Path) -> None:
        for result in read_results(path.parent):
            assert (
                f"{result.success} {result.interval} {result.plan} {result.held} {result.pace} {result.where}"
            )
            assert result.command("a", {"sampler": "ddim", "sampler_iterations": 3})
        write_results(path.parent, read_results(path.parent))

    path = tmp_path / RESULTS
    for content in [
        *(json.dumps(each).encode() for each in strange(rows)),
        *damaged(json.dumps(rows).encode(), WAYS),
    ]:
        path.write_bytes(content)
        outcome(use, path)


def test_archives_are_joined_or_refused_and_nothing_is_written_outside(
    tmp_path: Path, damaged: Damage
) -> None:
    source, parts = tmp_path / "source", tmp_path / "parts"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.txt").write_text("content")
    parts.mkdir()
    split(source, parts, part_bytes=4)
    whole = (parts / "manifest.json").read_bytes()
    out = tmp_path / "out" / "joined"
    before = set(tmp_path.rglob("*"))
    for i, content in enumerate(
        [*(json.dumps(each).encode() for each in strange(json.loads(whole))), *damaged(whole, WAYS)]
    ):
        (parts / "manifest.json").write_bytes(content)
        outcome(lambda path, i=i: join(path, out.with_name(str(i))), parts)
    made = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "out") for path in made)


@pytest.mark.parametrize("value", ["!!python/name:os.system", "[" * 500, "2026-99-99", "&a [*a]", "{", "\0"])
def test_value_of_an_option_is_data_or_one_line(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        ["train", "--data", str(tmp_path), "--out", str(tmp_path / "x"), "--set", f"batch_size={value}"]
    )
    said = capsys.readouterr().err
    assert code in (1, 2)
    assert said.count("\n") == 1
