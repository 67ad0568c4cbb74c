"""Every command once, in its smallest form: collect, train, kill, resume, eval, inspect, bench."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from dp_ros.cli import main
from dp_ros.cli.bench.floor import Phase, Rates, floor_ms
from dp_ros.inference.hardware import has_bf16

Cli = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "mujoco", "zarr", "numpy", "pydantic")


def test_help_imports_nothing_heavy() -> None:
    """Heavy imports would make help slow."""
    program = (
        "import sys; from dp_ros.cli import main; code = main(['--help']); "
        f"sys.exit(code or str([m for m in {HEAVY} if m in sys.modules] or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""
    for command in ("collect", "train", "eval", "demo", "bench", "inspect"):
        assert command in done.stdout


def test_help_texts_have_no_brackets_that_rich_would_swallow() -> None:
    """A unit as "[m]" would be taken for markup, and not be shown."""
    import click
    import typer

    from dp_ros.cli import app

    def texts(command: click.Command) -> list[str]:
        own = [command.help, *(getattr(parameter, "help", "") for parameter in command.params)]
        children = getattr(command, "commands", {}).values()
        return [text or "" for text in own] + [text for child in children for text in texts(child)]

    assert [text for text in texts(typer.main.get_command(app)) if "[" in text] == []


def test_collect_help_shows_the_defaults_of_the_schema() -> None:
    import typer

    from dp_ros.cli import app
    from dp_ros.schema import CollectConfig

    config = CollectConfig()
    expected = {
        "episodes": config.episodes,
        "cameras": ", ".join(config.cameras),
        "size": f"{config.width_px}x{config.height_px}",
        "noise": ",".join(map(str, config.noise)),
        "seed": config.first_seed,
        "max_steps": config.max_steps,
        "keep_steps": config.keep_steps,
        "markers": "markers" if config.markers else "no-markers",
        "policy_ticks": config.policy_ticks,
    }
    parameters = typer.main.get_command(app).commands["collect"].params  # type: ignore[attr-defined]
    shown = {parameter.name: parameter.show_default for parameter in parameters}
    assert {name: shown[name] for name in expected} == {name: str(value) for name, value in expected.items()}


@pytest.mark.parametrize("preset", ["cpu", "cpu-transformer", "paper", "paper-transformer"])
def test_presets_are_valid(preset: str) -> None:
    from dp_ros.cli.train import find_preset
    from dp_ros.schema import TrainConfig, load_yaml

    assert load_yaml(TrainConfig, find_preset(preset)).policy.task == ""


@pytest.mark.sim
def test_collect_goes_on_where_it_stopped(
    dataset: Path, dp_ros_here: Cli, collect_args: tuple[str, ...], tmp_path: Path
) -> None:
    from dp_ros.data import episodes

    more = tmp_path / "more"
    shutil.copytree(dataset, more)
    done = dp_ros_here("collect", *collect_args, "--episodes", 3, "--out", more)
    assert done.returncode == 0, done.stderr
    assert "3 episodes (3 tried)" in done.stdout
    before, after = episodes.load(dataset), episodes.load(more)
    assert list(after.episode_ends[:2]) == list(before.episode_ends)
    assert (after.images["gripperPOV"][: len(before)] == before.images["gripperPOV"]).all()


@pytest.mark.sim
def test_a_killed_training_resumes_to_the_same_weights(
    dataset: Path,
    trained: Path,
    tiny_config: Path,
    dp_ros: Cli,
    start_held: Callable[..., subprocess.Popen[bytes]],
    wait_for: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "killed"
    command = ("train", "--config", tiny_config, "--data", dataset, "--out", out)
    process = start_held(*command)
    wait_for(out / "state.safetensors", process)
    process.kill()
    assert process.wait() == -signal.SIGKILL

    assert main(list(map(str, command))) == 1
    assert "add --resume" in capsys.readouterr().err

    resumed = dp_ros(*command, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for file in ("state.safetensors", "checkpoint/policy.safetensors"):
        weights, expected = load_file(out / file), load_file(trained / file)
        assert weights.keys() == expected.keys()
        for name, tensor in weights.items():
            assert tensor.tobytes() == expected[name].tobytes(), f"{file}: {name}"


def test_preset_trains_on_a_dataset_of_other_cameras_rate_and_size(
    dp_ros_here: Cli, make_leaping: Callable[[Path], Path], tmp_path: Path
) -> None:
    """It says what it took, and warns of the bags that spoil the labels."""
    data, out = make_leaping(tmp_path / "data"), tmp_path / "run"
    small = ("steps=1", "batch_size=2", "noise_samples=1", "policy.unet={channels: [16], groups: 4}")
    options = [part for each in (*small, "precision=f32") for part in ("--set", each)]
    done = dp_ros_here("train", "--config", "cpu", "--data", data, "--out", out, *options)
    assert done.returncode == 0, done.stderr
    assert (
        f"cameras wrist ({data}); 30 Hz ({data}); 48x40 px ({data}); cropped to 42x35 px ({data})"
        in done.stderr
    )
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: bag b: action leaps by 5.01 m at tick 9")
    assert warnings[1].startswith("warning: bag a: up to 69% of the ticks repeat the sample of camera wrist")
    policy = json.loads((out / "checkpoint" / "config.json").read_text())["policy"]
    assert (policy["rate_hz"], policy["encoder"]["cameras"]) == (30, ["wrist"])
    assert (policy["encoder"]["width_px"], policy["encoder"]["crop_height_px"]) == (48, 35)


@pytest.mark.sim
def test_a_checkpoint_says_where_it_came_from(trained: Path, tiny_config: Path) -> None:
    text = (trained / "checkpoint" / "config.json").read_text()
    training = json.loads(text)["training"]
    assert training["data"]["task"] == "handle-press-v3"
    assert (training["data"]["episodes"], training["data"]["tried"]) == (2, 2)
    assert training["command"] == {"config": tiny_config.name, "set": []}
    assert str(trained.parent) not in text, "a path of this machine"


@pytest.mark.sim
def test_eval_counts_and_films(trained: Path, dp_ros_here: Cli, tmp_path: Path) -> None:
    report, video = tmp_path / "report.json", tmp_path / "videos"
    short = ("--episodes", 1, "--max-steps", 20, "--iterations", 2, "--engine", "torch")
    done = dp_ros_here("eval", trained, *short, "--json", report, "--video", video)
    assert done.returncode == 0, done.stderr
    assert "handle-press-v3 [in-process]: " in done.stdout
    data = json.loads(report.read_text())
    assert (data["task"], data["episodes"]) == ("handle-press-v3", 1)
    assert [episode["seed"] for episode in data["per_episode"]] == [0]

    import av

    with av.open(str(video / "seed0.mp4")) as film:
        stream = film.streams.video[0]
        assert stream.average_rate == 40
        assert stream.height == 480
        steps = data["per_episode"][0]["steps"]
        assert len(list(film.decode(video=0))) == steps // 2 + 1


@pytest.mark.sim
def test_spectator_is_upright(can_render: None) -> None:
    """Metaworld's corner cameras hang upside down; the arm's base belongs at the bottom of the picture."""
    from dp_ros.sim.arm import ArmSpec, make_arm

    arm = make_arm(ArmSpec("handle-press"))
    try:
        arm.reset(0)
        picture = arm.render("corner2", 240, 240).astype(int)
        rows = (picture[..., 0] > 2 * picture[..., 2] + 60).nonzero()[0]  # the red arm
        red_low = rows.max()
        dark = (picture.sum(-1) < 150).nonzero()[0]  # its black pedestal
    finally:
        arm.close()
    assert dark.mean() > rows.mean()
    assert red_low < 239


@pytest.mark.sim
def test_inspect_dataset(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(dataset)]) == 0
    shown = capsys.readouterr().out
    for fact in ("2 (2 seeds tried)", "gripperPOV 64x64 px", "0 in 1, 0.3 in 1 episodes", "handle-press-v3"):
        assert fact in shown


@pytest.mark.sim
def test_inspect_run_shows_its_checkpoint(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(trained)]) == 0
    shown = capsys.readouterr().out
    for fact in (
        "M parameters",
        "T_o 2 observed",
        "gripperPOV",
        "position relative",
        "[16, 32]",
        "tiny.yaml",
    ):
        assert fact in shown


def test_packed_model_may_sample_otherwise_with_the_same_weights(tmp_path: Path) -> None:
    from dp_ros.cli.pack import pack
    from dp_ros.policy.checkpoint import save_checkpoint
    from dp_ros.policy.checkpoint_config import policy_config, read_config
    from dp_ros.policy.diffusion_policy import DiffusionPolicy
    from dp_ros.schema import ConfigError, PolicyConfig

    limits = {"low": [-1.0] * 4, "high": [1.0] * 4}
    config = PolicyConfig.model_validate({"unet": {"channels": [16, 32]}})
    policy = DiffusionPolicy(config, {"action": limits, "state": limits})
    save_checkpoint(policy, tmp_path / "a", dtype="f16")
    pack(str(tmp_path / "a"), tmp_path / "b", iterations=2, spacing="trailing")
    before, after = (policy_config(tmp_path / name).diffusion for name in "ab")
    assert (after.sampler_iterations, after.spacing) == (2, "trailing")
    assert after.model_copy(update={"sampler_iterations": 10, "spacing": "leading"}) == before
    first, second = (read_config(tmp_path / name)["sha256"]["policy.safetensors"] for name in "ab")
    assert first == second
    with pytest.raises(ConfigError, match="sampler_iterations 500 exceeds the 100"):
        pack(str(tmp_path / "a"), tmp_path / "c", iterations=500)
    assert not (tmp_path / "c").exists()


def test_packed_model_understands_the_paraphrases_of_a_file(tmp_path: Path) -> None:
    from dp_ros.cli.errors import CliError
    from dp_ros.cli.pack import pack
    from dp_ros.policy.checkpoint_config import instructions_of
    from dp_ros.policy.instructions import SENTENCES
    from dp_ros.resources import share_file
    from dp_ros.schema import load_sentences

    task = "drawer-open-v3"
    paraphrase = load_sentences(share_file(SENTENCES)).tasks[task].paraphrases[0]
    file = tmp_path / "mine.yaml"
    file.write_text(f"{task}: {{known: [open it], paraphrases: [{paraphrase}]}}\n")
    pack("metaworld-50", tmp_path / "a", paraphrases=file)
    known = instructions_of(tmp_path / "a")
    assert known is not None
    assert [each.text for each in known.sentences if each.kind == "paraphrase"] == [paraphrase]
    assert known.meaning(paraphrase).text in {known.sentences[row].text for row in known.rows(task)}
    with pytest.raises(CliError, match="takes no instruction: leave --paraphrases out"):
        pack("drawer-open-v3-unet", tmp_path / "b", paraphrases=file)
    assert not (tmp_path / "b").exists()


def test_inspect_shows_the_size_of_a_transformer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dp_ros.policy.checkpoint import save_checkpoint
    from dp_ros.policy.diffusion_policy import DiffusionPolicy
    from dp_ros.schema import PolicyConfig

    network = {"layers": 3, "heads": 2, "embedding_dim": 16}
    limits = {"low": [-1.0] * 4, "high": [1.0] * 4}
    config = PolicyConfig.model_validate({"network": "transformer", "transformer": network})
    save_checkpoint(DiffusionPolicy(config, {"action": limits, "state": limits}), tmp_path / "tiny")
    assert main(["inspect", str(tmp_path / "tiny")]) == 0
    assert "transformer 3 x 16, 2 heads" in capsys.readouterr().out


@pytest.mark.sim
def test_bench_render(can_render: None, dp_ros: Cli, tmp_path: Path) -> None:
    report = tmp_path / "render.json"
    done = dp_ros("bench", "render", "--size", 64, "--seconds", 0.1, "--json", report)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert data["ratio"] == data["metaworld"]["median_ms"] / data["dp_ros"]["median_ms"]
    assert data["processor_ratio"] == data["metaworld"]["processor_ms"] / data["dp_ros"]["processor_ms"]
    assert len(data["dp_ros"]["samples_ms"]) == len(data["metaworld"]["samples_ms"])
    assert data["mean_pixel_difference"] < 40, "the two do not look at the same"


def test_bench_gate_finds_no_command_outside_a_limit(dp_ros_here: Cli, tmp_path: Path) -> None:
    report = tmp_path / "gate.json"
    done = dp_ros_here("bench", "gate", "--inputs", 3000, "--json", report)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert (data["inputs"], data["broken"], data["is_safe"]) == (3000, 0, True)
    assert 0.9 < data["shares"]["speed"] <= 1.000001  # the limits bite
    assert {"pass", "hold_not_finite", "limited_speed", "limited_acceleration"} <= set(data["verdicts"])


def test_bench_train(tiny_config: Path, dp_ros_here: Cli, tmp_path: Path) -> None:
    report = tmp_path / "train.json"
    done = dp_ros_here("bench", "train", "--config", tiny_config, "--steps", 2, "--profile", "--json", report)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert len(data["samples_ms"]) == 2
    assert 0 < data["compute_share"] < 1
    assert "convolution" in done.stdout


@pytest.mark.sim
def test_bench_train_from_disk(tiny_config: Path, dataset: Path, dp_ros_here: Cli, tmp_path: Path) -> None:
    report = tmp_path / "train.json"
    options = ("--config", tiny_config, "--data", dataset, "--steps", 1, "--json", report)
    done = dp_ros_here("bench", "train", *options)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    assert {side: len(samples) for side, samples in data["samples_ms"].items()} == {"disk": 3, "memory": 3}
    assert 0 < data["resident_gb"] < 64


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(sys.prefix) / "lerobot" / "draccus").exists(), reason="needs lerobot: run `make lerobot`"
)
def test_bench_train_against_lerobot(tiny_config: Path, dp_ros: Cli, tmp_path: Path) -> None:
    report = tmp_path / "lerobot.json"
    settings = ("--config", tiny_config, "--set", "run_length=4", "--set", "precision=bf16", "--steps", 2)
    done = dp_ros("bench", "train", "--against", "lerobot", *settings, "--json", report)
    assert done.returncode == 0, done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert [row["precision"] for row in rows] == [
        "bf16" if has_bf16() else "f32"
    ]  # of both: see test/unit/cli
    for row in rows:
        assert set(row["wall"]["samples_ms"]) == {"lerobot", "run_length 1", "run_length 4"}
        assert all(len(samples) == 2 for samples in row["processor"]["samples_ms"].values())


@pytest.mark.slow
@pytest.mark.skipif(
    not (Path(sys.prefix) / "lerobot" / "draccus").exists(), reason="needs lerobot: run `make lerobot`"
)
def test_bench_inference_against_lerobot(dp_ros: Cli, tmp_path: Path) -> None:
    report, plot = tmp_path / "inference.json", tmp_path / "inference.png"
    size = ("--channels", "16,32", "--horizon", 8, "--pixels", 48)
    outputs = ("--json", report, "--plot", plot)
    done = dp_ros("bench", "inference", "--engine", "torch", *size, "--plans", 2, *outputs)
    assert done.returncode == 0, done.stderr
    data = json.loads(report.read_text())
    (result,) = data["sizes"]
    rows = result["rows"]
    assert {"lerobot f32", "torch f32"} <= set(rows)
    assert rows["torch f32"]["difference"] < 1e-4, "the two must have the same weights"
    assert all(len(row[clock]["samples_ms"]) == 2 for row in rows.values() for clock in ("wall", "processor"))
    medians = {row: rows[row]["wall"]["median_ms"] for row in ("lerobot f32", "torch f32")}
    assert data["ratio"] == medians["lerobot f32"] / medians["torch f32"]
    work = {name: Phase(**phase) for name, phase in result["work"].items()}
    rates = Rates(result["rates"]["flops"], result["rates"]["memory"])
    floor = result["floor_ms"]["f32"]
    assert floor == pytest.approx(floor_ms(work, rates, "f32", result["rates"]["cache_bytes"]))
    assert floor > 0
    assert rows["torch f32"]["floor_share"] == floor / medians["torch f32"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_bench_inference_of_a_checkpoint(trained: Path, dp_ros: Cli, tmp_path: Path) -> None:
    report = tmp_path / "plan.json"
    done = dp_ros("bench", "inference", trained, "--engine", "torch", "--plans", 3, "--json", report)
    assert done.returncode == 0, done.stderr
    rows = json.loads(report.read_text())["rows"]
    assert list(rows) == ["torch", "torch, prefetched"]
    for row in rows.values():
        wall = row["wall"]
        assert 0 < wall["min_ms"] <= wall["median_ms"] <= wall["p99_ms"] <= wall["max_ms"]
        assert 0 < row["rss_mb"] <= row["peak_mb"]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--engine", "magic"), "engine 'magic' is unknown"),
        (("nowhere", "--all"), "are for no checkpoint"),
        (("nowhere", "--engine", "torch"), "nowhere"),
        (("--all", "--pixels", 96), "leave out"),
    ],
)
def test_bench_inference_refuses_in_one_line(
    dp_ros_here: Cli, options: tuple[object, ...], line: str
) -> None:
    done = dp_ros_here("bench", "inference", *options)
    assert done.returncode != 0
    assert line in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
