"""Evaluations: checkpoints and outputs are checked before the first episode, and finished results are kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mujoco")

from dp_ros.cli import errors, main
from dp_ros.cli.evaluate import describe
from dp_ros.cli.evaluate import run_episodes as evaluate
from dp_ros.evaluation.disturbances import KINDS, NONE
from dp_ros.evaluation.episode import video_fps
from dp_ros.evaluation.provenance import provenance
from dp_ros.evaluation.report.write_report import unique_names
from dp_ros.evaluation.results import Report
from dp_ros.evaluation.robustness import Curve, default_sweeps, largest_part, measure
from dp_ros.evaluation.rollout import EvalConfig, check_rate, run_episodes
from dp_ros.policy.checkpoint import CheckpointError, save_checkpoint
from dp_ros.policy.checkpoint_config import policy_config, weights_sha256
from dp_ros.policy.diffusion_policy import DiffusionPolicy
from dp_ros.schema import ConfigError, PolicyConfig, RuntimeConfig, override
from dp_ros.sim.arm import simulator_of
from dp_ros.sim.rendering import RenderingError, choose_backend

RUNTIME = RuntimeConfig(mode="lockstep", threads=1, engine="torch")
TASK = "tiny-push"
QUICK = ("--engine", "torch")  # the choice of an engine takes seconds for each new checkpoint


@pytest.fixture
def save(tiny_policy: PolicyConfig, stats: Any, one_thread: None) -> Callable[..., Path]:
    """Write a checkpoint with weights of its own each time, as a training does."""
    policy = override(tiny_policy, {"encoder.cameras": ["gripperPOV"], "task": TASK, "rate_hz": 20.0})

    def save(folder: Path, horizons: dict[str, int] | None = None, **training: Any) -> Path:
        changed = override(policy, {f"horizons.{name}": value for name, value in (horizons or {}).items()})
        return save_checkpoint(DiffusionPolicy(changed, stats), folder, training=training)

    return save


@pytest.fixture
def can_render() -> None:
    try:
        choose_backend()
    except RenderingError as error:
        pytest.skip(str(error))


def test_weights_that_a_training_has_replaced_are_refused_in_one_line(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = save(tmp_path / "checkpoint")
    setting = EvalConfig(str(checkpoint), TASK, RUNTIME, 2, weights_sha256=weights_sha256(checkpoint))
    save(checkpoint)
    with pytest.raises(CheckpointError, match=r"holds other weights than when this began") as caught:
        next(run_episodes(setting, [(0, NONE)]))
    assert "\n" not in str(caught.value)


def test_policy_of_another_rate_than_the_arm_is_refused(save: Callable[..., Path], tmp_path: Path) -> None:
    """A policy of 20 Hz would take each tick of an arm of 80 Hz for 50 ms."""
    checkpoint = save(tmp_path / "checkpoint")
    check_rate(policy_config(checkpoint), TASK, "here")
    pytest.importorskip("metaworld")
    with pytest.raises(ConfigError, match=r"checkpoint: runs at 20 Hz, the simulated arm at 80 Hz"):
        next(run_episodes(EvalConfig(str(checkpoint), "reach-v3", RUNTIME, 2), [(0, NONE)]))


def test_videos_play_in_real_time() -> None:
    pytest.importorskip("metaworld")
    assert (video_fps(TASK), video_fps("reach-v3")) == (10, 40)


@pytest.mark.sim
def test_report_names_the_weights_that_were_run_and_not_those_that_came_meanwhile(
    save: Callable[..., Path], tmp_path: Path, can_render: None
) -> None:
    checkpoint = save(tmp_path / "checkpoint")
    before = weights_sha256(checkpoint)
    report = evaluate(
        checkpoint, "", 0, 2, "in-process", 2, RUNTIME, lambda result, pictures: save(checkpoint) and None
    )
    assert report.provenance["weights_sha256"] == before != weights_sha256(checkpoint)


@pytest.mark.sim
def test_points_are_told_of_as_they_end_and_onsets_follow_the_calm_episode(
    save: Callable[..., Path], tmp_path: Path, can_render: None
) -> None:
    setting = EvalConfig(str(save(tmp_path / "checkpoint")), TASK, RUNTIME, 4)
    occlusion = KINDS["occlusion"]
    told: list[list[int]] = []

    def on_point(report: Report, curves: list[Curve]) -> None:
        assert len(report.results) == 2
        told.append([len(curve.points) for curve in curves])

    sweeps = [[occlusion(0), occlusion(1), occlusion(5)]]
    _, curves = measure(setting, sweeps, [3, 4], on_point=on_point)
    assert told == [[1], [2], [3]]
    for point in curves[0].as_dict()["points"][1:]:
        assert (point["episodes"], point["disturbed"]) == (2, 2)
    first, weak, strong = (point.episodes for point in curves[0].points)
    rate_hz = simulator_of(setting.task).rate_hz
    for calm, a, b in zip(first, weak, strong, strict=True):
        own = {"nominal_steps": 4, "nominal_speed_m_s": calm.trace.top_speed_m_s(rate_hz)}
        assert replace(a.disturbance, strength=5) == b.disturbance == occlusion(5, **own)


def test_policy_is_told_of_no_delay_beyond_its_plans(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plans of T_p = 8 reach 6 ticks beyond the newest of T_o = 2 frames; those of T_p = 4, two."""
    checkpoint = save(tmp_path / "long")
    asked = ["robustness", str(checkpoint), "--disturb", "known-delay=7", "--report", str(tmp_path / "out")]
    assert main(asked) != 0
    assert "is 7.0 ticks, but plans reach 6 ahead" in capsys.readouterr().err
    short = save(tmp_path / "short", horizons={"T_p": 4, "T_a": 2})
    (known,) = [c for c in default_sweeps(TASK, short, RUNTIME) if c[-1].kind == "known-delay"]
    assert [d.strength for d in known] == [0, 1, 2]


def test_every_checkpoint_and_output_is_checked_before_the_first_episode(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = save(tmp_path / "good"), save(tmp_path / "bad", data={"first_seed": 0, "tried": 9})
    file = tmp_path / "file"
    file.write_text("")
    for args, said in (
        (["eval", good, bad, "--report", tmp_path / "out"], "overlap the training seeds 0 to 8"),
        (["compare", good, bad], "overlap the training seeds 0 to 8"),
        (["eval", good, "--report", file], str(file)),
        (["eval", good, "--json", tmp_path], "is a folder: give the name of a file"),
        (["robustness", good, "--report", file / "under"], str(file)),
        (["compare", good, good, "--keep", file], str(file)),
        (["eval", good, "--params", file], f"params_file {file}: has no parameters for /policy_node"),
    ):
        assert main([*map(str, args), "--episodes", "2", *QUICK]) in (errors.USAGE, errors.FAILED)
        printed = capsys.readouterr()
        assert said in printed.err
        assert "seed 0" not in printed.out
    assert not (tmp_path / "out").exists()


def test_seeds_that_are_not_the_reports_are_refused_before_the_first_episode(
    save: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episodes = [{"seed": seed, "success": True, "steps": 5} for seed in (0, 2)]
    report = {"task": TASK, "checkpoint": "a", "settings": {"max_steps": 2}, "per_episode": episodes}
    (tmp_path / "a.json").write_text(json.dumps(report))
    assert main(["compare", str(tmp_path / "a.json"), str(save(tmp_path / "b"))]) == errors.USAGE
    printed = capsys.readouterr()
    assert "are in one report only" in printed.err
    assert "seed 0" not in printed.out


@pytest.mark.sim
def test_what_was_measured_is_kept_where_the_next_evaluation_fails(
    save: Callable[..., Path], tmp_path: Path, can_render: None
) -> None:
    good, bad = save(tmp_path / "good"), save(tmp_path / "bad")
    (bad / "policy.safetensors").write_bytes(b"")
    short = ("--episodes", "1", "--max-steps", "2", *QUICK)
    for command, place in (("eval", "--report"), ("compare", "--keep")):
        folder = tmp_path / command
        assert main([command, str(good), str(bad), *short, place, str(folder)]) == errors.FAILED
        assert json.loads((folder / "good.json").read_text())["episodes"] == 1


@pytest.mark.sim
def test_limits_of_a_parameter_file_hold_in_the_episodes(
    save: Callable[..., Path], tmp_path: Path, can_render: None
) -> None:
    box = {"workspace_low_m": [5.0, 5.0, 5.0], "workspace_high_m": [6.0, 6.0, 6.0]}
    content = {"/**/policy_node": {"ros__parameters": {"min_contrast": 9.0, "gate": box}}}
    (params := tmp_path / "params.yaml").write_text(json.dumps(content))
    outputs = ("--params", params, "--json", tmp_path / "report.json")
    assert main(["eval", *map(str, (save(tmp_path / "good"), *outputs)), "--episodes", "1", *QUICK]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["settings"]["gate"] == box
    assert "outside the workspace" in report["per_episode"][0]["reason"]


def test_processes_are_counted_for_the_episodes_of_every_strength(
    save: Callable[..., Path], tmp_path: Path
) -> None:
    """One seed at two strengths is two episodes at once: they were said to be run by one process."""
    checkpoint, delay = save(tmp_path / "checkpoint"), KINDS["action-delay"]
    episodes = largest_part([[delay(0), delay(1), delay(2)]], [0])
    assert describe(checkpoint, RUNTIME, 2, 2, episodes)["settings"]["jobs"] == 2


@pytest.mark.sim
def test_model_called_robustness_does_not_overwrite_the_curves(
    save: Callable[..., Path], tmp_path: Path, can_render: None
) -> None:
    asked = (
        "--episodes",
        1,
        "--max-steps",
        2,
        "--disturb",
        "action-delay=1",
        "--report",
        tmp_path / "out",
        *QUICK,
    )
    assert main(["robustness", str(save(tmp_path / "robustness")), *map(str, asked)]) == 0
    curves, own, page = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text())
        for name in ("robustness", "robustness-1", "page")
    )
    assert curves["complete"]
    assert own["per_episode"] == curves["per_episode"]
    assert page["reports"][0]["name"] == "robustness-1"
    assert page["robustness"] == curves["curves"]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("dp_ros eval /home/ann/runs/a/ b/c --json=/tmp/x.json", "dp_ros eval a b/c --json=x.json"),
        ("dp_ros eval '/home/ann/my runs/a b' --seed 3", "dp_ros eval 'a b' --seed 3"),
        ("dp_ros robustness m --disturb brightness=-1,1", "dp_ros robustness m --disturb brightness=-1,1"),
        ("", ""),
    ],
)
def test_provenance_does_not_tell_where_on_the_machine_things_lay(
    save: Callable[..., Path], tmp_path: Path, typed: str, kept: str
) -> None:
    assert provenance(save(tmp_path / "checkpoint"), typed)["command"] == kept


def test_names_of_reports_are_told_apart() -> None:
    assert unique_names(["x/m", "y/m", "m-1"]) == ["m-2", "m-3", "m-1"]
    assert unique_names(["a/checkpoint", "a/best", "b/best"]) == ["a", "a-best", "b-best"]
    assert unique_names(["runs/robustness", "index/checkpoint"]) == ["robustness-1", "index-1"]
    assert unique_names(["a/m", "a/m"]) == ["m-1", "m-2"]
