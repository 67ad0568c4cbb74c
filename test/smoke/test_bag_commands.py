"""`dp_ros bag` and `dp_ros convert` as people run them: figures, verdicts, one line where something is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib.image import imread

from dp_ros.cli import main
from dp_ros.data import episodes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """(exit code, stdout, stderr) of a command."""

    def run(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        written = capsys.readouterr()
        assert "Traceback" not in written.err
        return code, written.out, written.err

    return run


@pytest.fixture
def bags(tmp_path: Path, bag_maker) -> Path:
    """Three good episodes, and one whose camera stopped for 0.25 s."""
    folder = tmp_path / "bags"
    for i in range(3):
        bag_maker.episode(folder / f"episode_{i}", seed=i, custom={"outcome": "success", "task": "pour"})
    stopped = lambda stream, i: stream == "camera left" and 10 <= i < 30  # noqa: E731
    bag_maker.episode(
        folder / "episode_3", seed=3, dropped=stopped, custom={"outcome": "success", "task": "pour"}
    )
    return folder


def test_check_says_which_episode_fails_and_why(run: Run, bags: Path, tmp_path: Path) -> None:
    code, out, _ = run("bag", "check", bags, "--plot", tmp_path / "plots", "--json", tmp_path / "audit.json")
    assert code == 1
    assert "3 of 4 episodes pass" in out
    assert "camera left: a gap of 262 ms" in out
    figures = json.loads((tmp_path / "audit.json").read_text())
    assert [figures[str(bags / f"episode_{i}")]["passed"] for i in range(4)] == [True, True, True, False]
    assert figures[str(bags / "episode_0")]["streams"]["camera left"]["messages"] == 40
    picture = imread(tmp_path / "plots/episode_3.png")
    assert picture.shape[0] > 300
    assert ((picture[..., 0] > 0.7) & (picture[..., 1] < 0.3)).any()  # the gap, in red


def test_check_of_good_episodes_exits_with_zero_and_limits_can_be_set(run: Run, bags: Path) -> None:
    code, out, _ = run("bag", "check", bags / "episode_0")
    assert code == 0
    assert "80.0 Hz" in out
    code, _, _ = run(
        "bag", "check", bags, "--set", "max_gap_s=1", "--set", "max_missing=1", "--set", "max_skew_s=1"
    )
    assert code == 0


def test_convert_names_what_it_refuses_and_goes_on(run: Run, bags: Path, tmp_path: Path) -> None:
    out_dir = tmp_path / "data"
    code, out, _ = run("convert", bags, "--out", out_dir, "--jobs", 1)
    assert code == 0
    assert f"refused {bags / 'episode_3'}: fails the audit: camera left: a gap of 262 ms" in out
    assert f"{out_dir}: 3 episodes, 120 ticks, 3 bags converted, 1 refused" in out
    assert "control rate: 80 Hz, that of camera left and /command/ee_pose (--rate sets another)" in out
    assert "warning" not in out
    _, out, _ = run("convert", bags, "--out", tmp_path / "fast", "--rate", 200, "--jobs", 1)
    assert "control rate: 200 Hz\nwarning: 61% of the ticks repeat the sample of camera left" in out
    assert "0 bags converted" in run("convert", bags, "--out", out_dir, "--jobs", 1)[1]
    assert episodes.load(out_dir).attributes["collect"]["task"] == "pour"
    code, out, _ = run("inspect", out_dir)
    assert code == 0


def test_repair_then_label_then_convert(run: Run, bags: Path, tmp_path: Path, bag_maker) -> None:
    """A recorder that was killed: refused, repaired, refused as unlabelled, labelled, converted."""
    bag = bag_maker.episode(bags / "episode_4", custom={"task": "pour"})
    (bag / "metadata.yaml").unlink()
    assert (
        f"was not closed (it has no metadata.yaml); run `dp_ros bag repair {bag}`"
        in run("convert", bag, "--out", tmp_path / "data")[2]
    )
    code, out, _ = run("bag", "repair", bags)
    assert code == 0
    assert f"{bag}: repaired, 200 messages kept" in out
    code, _, err = run("convert", bag, "--out", tmp_path / "data")
    assert code == 1
    assert "its outcome is unknown, not success; label it with `dp_ros bag label" in err
    assert run("bag", "label", bag, "--outcome", "success", "--note", "was killed")[0] == 0
    assert run("convert", bag, "--out", tmp_path / "data")[0] == 0
    assert episodes.load(tmp_path / "data").attributes["bags"][0]["note"] == "was killed"


def test_inspect_shows_the_audit_of_a_dataset_in_words(run: Run, bags: Path, tmp_path: Path) -> None:
    """Not as JSON: a line for each stream, and a line for each bag with what its audit says."""
    assert run("convert", bags, "--out", tmp_path / "data", "--accept-failed", "--jobs", 1)[0] == 0
    code, out, _ = run("inspect", tmp_path / "data")
    assert code == 0
    assert "{" not in out
    rows = {
        cells[1].strip(): cells[2].strip()
        for cells in (line.split("│") for line in out.splitlines())
        if len(cells) > 2
    }
    assert rows["bags"] == "4, 1 with a failed audit"
    assert rows["stream camera left"] == "80.0 Hz, longest gap 262 ms, 20 missing"
    assert rows["bag episode_0"] == "success, 40 ticks"
    assert rows["bag episode_3"].startswith("success, 28 ticks, 2 pieces; FAIL: camera left: a gap of 262 ms")


def test_of_many_bags_those_with_a_remark_are_shown_first() -> None:
    from dp_ros.cli.inspect import bags_rows

    quiet = [{"name": f"q{i}", "outcome": "success", "ticks": 5} for i in range(60)]
    noted = [{"name": f"n{i}", "audit": {"passed": True, "notes": ["arm leaps"]}} for i in range(30)]
    rows = bags_rows([*quiet, *noted])
    assert [name for name, _ in rows[1:31]] == [f"bag n{i}" for i in range(30)]
    assert rows[31] == ("", "and 60 more bags, without a remark")
    assert rows[1][1] == "unknown, 0 ticks; note: arm leaps"


def test_inspect_shows_a_bag(run: Run, bags: Path) -> None:
    code, out, _ = run("inspect", bags / "episode_0")
    assert code == 0
    for part in ("/camera/left/image_raw", "40 sensor_msgs/msg/Image", "pour", "success"):
        assert part in out


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (("convert", "nowhere", "--out", "data"), 1, "nowhere: does not exist"),
        (("convert", "{bags}", "--out", "data", "--size", "big"), 2, "--size 'big': give WIDTHxHEIGHT"),
        (("convert", "{bags}", "--out", "data", "--size", "top=32"), 2, "names camera 'top'; there are left"),
        (("convert", "{bags}", "--out", "data", "--size", "left=9x9"), 2, "pictures.left.height_px"),
        (("convert", "{bags}", "--out", "data", "--fit", "left=zoom"), 2, "should be 'same', 'crop' or 'pad'"),
        (("convert", "{bags}", "--out", "data", "--set", "max_age=1"), 2, "did you mean 'max_age_s'?"),
        (("convert", "{bags}", "--out", "data", "--map", "no.yaml"), 2, "no.yaml: cannot be read"),
        (("convert", "{bags}", "--out", "data", "--cluster", "slurm:x"), 1, "cluster 'slurm:x': give dask"),
        (("convert", "{bags}", "--out", "data", "--jobs", "0"), 2, "--jobs 0"),
        (("bag", "check", "{bags}", "--set", "max_gap=1"), 2, "unknown key 'max_gap'; did you mean 'max_gap_s'?"),
        (("bag", "repair", "nowhere"), 1, "nowhere: does not exist"),
        (("bag", "label", "{bags}", "--outcome", "good"), 2, "--outcome good: give one of success, failure"),
        (("bag", "label", "{bags}"), 2, "no label: give --outcome, --task or --note"),
    ],
)  # fmt: skip
def test_what_people_get_wrong_is_one_line(
    run: Run, bags: Path, args: tuple[str, ...], code: int, says: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found, out, err = run(*(arg.format(bags=bags) for arg in args))
    assert (found, out) == (code, "")
    assert err.startswith("dp_ros: ")
    assert err.count("\n") == 1
    assert says in err
    assert not (tmp_path / "data").exists()


def test_out_of_disk_keeps_what_is_converted(dp_ros, run: Run, bags: Path, tmp_path: Path) -> None:
    import resource
    import signal

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = dp_ros("convert", bags, "--out", tmp_path / "data", "--jobs", "1", preexec_fn=small_files)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "the disk is full" in done.stderr
    assert run("convert", bags, "--out", tmp_path / "data", "--jobs", 1)[0] == 0
    assert len(episodes.load(tmp_path / "data").episode_ends) == 3
