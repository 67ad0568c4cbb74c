"""The OpenVINO engine: it agrees with the reference, is trusted only after its check, and lives in a cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dp_ros.control.planner import PlanRequest
from dp_ros.inference import cache, self_check
from dp_ros.inference import engine as engine_module
from dp_ros.inference.engine import Engine, choose_engine, load_engine
from dp_ros.inference.self_check import TOLERANCE, EngineCheckError, Verdict, fixed_requests
from dp_ros.schema import ConfigError, RuntimeConfig

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]

ROOT = Path(__file__).parents[3]
F32 = RuntimeConfig(device="cpu", precision="f32")
CHOOSE = (
    "import sys; from dp_ros.inference.engine import choose_engine; from dp_ros.schema import RuntimeConfig; "
    "runtime, why = choose_engine(sys.argv[1], RuntimeConfig(device='cpu', precision='f32')); "
    "print(runtime.engine, why)"
)


def load(checkpoint: Path, engine: str, **runtime: Any) -> Engine:
    settings = {"engine": engine, "device": "cpu", "threads": 1, "precision": "f32"} | runtime
    return load_engine(checkpoint, RuntimeConfig.model_validate(settings))


# Two engines as when a node is configured again: the second is loaded before the first one is freed.
HEED = """
import gc, signal, sys
from dp_ros.inference.engine import load_engine
from dp_ros.schema import RuntimeConfig
runtime = RuntimeConfig(engine="openvino", device="cpu", precision="f32", threads=1)
first, second = (load_engine(sys.argv[1], runtime) for _ in range(2))
del first; gc.collect()
del second; gc.collect()
try:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("heeded")
"""


def test_ctrl_c_is_heeded_after_engines_were_freed(checkpoint: Path) -> None:
    command = [sys.executable, "-c", HEED, str(checkpoint)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "heeded\n"), done.stderr


@pytest.mark.parametrize(
    "sampler",
    [
        {},
        {"sampler": "ddpm"},
        {"sampler_iterations": 3, "sampler_spacing": "trailing"},
        {"sampler": "dpm_solver", "sampler_iterations": 4},
        {"sampler": "dpm_solver", "sampler_iterations": 4, "warm_start": 2},
    ],
)
def test_it_plans_as_the_reference_does(of_network: Path, stats: dict, sampler: dict[str, Any]) -> None:
    openvino, reference = (load(of_network, engine, **sampler) for engine in ("openvino", "torch"))
    half_range = (np.array(stats["action"]["high"]) - stats["action"]["low"]) / 2
    for request in fixed_requests(reference.config):
        request = replace(request, guess=reference(request) / 2)  # begun at with `warm_start` alone
        difference = (openvino(request) - reference(request)) / half_range
        assert np.abs(difference).max() < TOLERANCE["f32"]


def test_bf16_is_near_the_reference_and_not_equal(checkpoint: Path, stats: dict) -> None:
    bf16, f32 = (load(checkpoint, "openvino", precision=precision) for precision in ("bf16", "f32"))
    half_range = (np.array(stats["action"]["high"]) - stats["action"]["low"]) / 2
    differences = [np.abs((bf16(r) - f32(r)) / half_range).max() for r in fixed_requests(f32.config)]
    assert max(differences) < 0.5
    if "avx512_bf16" in Path("/proc/cpuinfo").read_text():
        assert max(differences) > 0


def test_a_prefetched_frame_changes_nothing(
    checkpoint: Path, make_request: Callable[..., PlanRequest]
) -> None:
    engine, request = load(checkpoint, "openvino"), make_request()
    expected = load(checkpoint, "openvino")(request)
    engine.prefetch(request.images[0])
    np.testing.assert_array_equal(engine(request), expected)
    np.testing.assert_array_equal(engine(request), expected)


def test_a_frame_is_encoded_once(
    checkpoint: Path, make_request: Callable[..., PlanRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, request = load(checkpoint, "openvino"), make_request()
    calls: list[int] = []
    encoders = [
        lambda picture, encode=encode: (calls.append(1), encode(picture=picture))[1]
        for encode in engine._encoders
    ]
    monkeypatch.setattr(engine, "_encoders", encoders)
    engine.prefetch(request.images[0])
    assert len(calls) == len(encoders)
    engine(request)
    assert len(calls) == 2 * len(encoders)  # the newest frame alone was left
    engine(request)
    assert len(calls) == 2 * len(encoders)


def test_auto_chooses_it_with_the_reason_and_the_cache_serves_the_next_process(checkpoint: Path) -> None:
    runtime, why = choose_engine(checkpoint, RuntimeConfig(device="cpu"))
    assert runtime.engine in ("openvino", "torch")
    assert "a plan takes openvino" in why
    program = (
        f"{CHOOSE}; assert 'torch' not in sys.modules; assert 'dp_ros.inference.export' not in sys.modules"
    )
    done = run(program, checkpoint)
    assert done.returncode == 0, done.stderr


def test_processes_that_begin_at_once_make_one_export(checkpoint: Path, tmp_path: Path) -> None:
    """Two robots with one policy, started for the first time: the second waits for what the first makes."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-c", f"import torch; {CHOOSE}", str(checkpoint)]
    both = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert "a plan takes openvino" in said[0]
    assert said[0] == said[1]  # to the last digit of the times: one was measured, the other read


def run(program: str, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=900,  # of which a self-check may take 300 s
    )


def a_package(folder: Path, code: str, name: str = "openvino") -> str:
    """PYTHONPATH with a package of that code, found before the real one."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    info = folder / f"{name}-9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its self-check died of SIGSEGV"),
        ("raise RuntimeError('no such processor')", "its self-check failed: RuntimeError: no such processor"),
        (
            "import os, signal\ndef __getattr__(name): os.kill(os.getpid(), signal.SIGKILL)",  # while it exports
            "its self-check died of SIGKILL",
        ),
    ],
)
def test_an_engine_that_dies_costs_a_line(checkpoint: Path, tmp_path: Path, code: str, reason: str) -> None:
    """In a child process, so that the node lives; the next time it is tried again."""
    broken = a_package(tmp_path, code)
    done = run(CHOOSE, checkpoint, PYTHONPATH=broken, XDG_CACHE_HOME=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"torch openvino f32 was not taken: {reason}")
    assert done.stdout.count("\n") == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.fixture
def exported(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The export of `checkpoint` with its verdict, in a cache of the test's own."""
    load(checkpoint, "openvino")
    wanted = cache.identity(checkpoint, "openvino", metadata.version("openvino"))
    shared = cache.folder_of(wanted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(shared, cache.folder_of(wanted)))


def test_an_engine_that_disagrees_is_not_trusted(
    checkpoint: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(self_check.TOLERANCE, "f32", -1.0)
    verdict = self_check._verdict_path(exported, F32)
    verdict.unlink()
    task = {
        "checkpoint": str(checkpoint),
        "runtime": {"engine": "openvino", "threads": 1, "precision": "f32"},
        "folder": str(exported),
        "identity": json.loads((exported / cache.IDENTITY).read_text())["identity"],
    }
    with pytest.raises(EngineCheckError, match=r"its actions differ from the reference's by .* more than -1"):
        self_check._run(task)
    assert not verdict.exists()


def test_a_child_that_dies_as_it_ends_is_not_trusted_the_next_time_either(
    checkpoint: Path, exported: Path, tmp_path: Path
) -> None:
    for verdict in exported.glob("verdict-*.json"):
        verdict.unlink()
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, signal, sys\n"
        "if 'dp_ros.inference.self_check' in sys.orig_argv:\n"
        "    atexit.register(lambda: os.kill(os.getpid(), signal.SIGSEGV))\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for _ in range(2):
        done = run(CHOOSE, checkpoint, PYTHONPATH=path)
        assert done.stdout.startswith("torch openvino f32 was not taken: its self-check died of SIGSEGV")


def test_a_compiled_file_that_changed_since_it_was_noted_is_removed(tmp_path: Path) -> None:
    compiled = tmp_path / "compiled"
    assert cache.trusted(compiled) == compiled
    blob = compiled / "1.blob"
    blob.write_bytes(b"weights")
    cache.note(compiled)
    assert cache.trusted(compiled) == compiled
    assert blob.exists()
    blob.write_bytes(b"weighty")
    assert cache.trusted(compiled) == compiled
    assert not blob.exists()


def test_compiled_weights_that_were_damaged_are_compiled_again(
    checkpoint: Path, exported: Path, make_request: Callable[..., PlanRequest]
) -> None:
    """OpenVINO itself notices only damage to the end of the file."""
    expected = load(checkpoint, "openvino")(make_request())
    blobs = list(exported.rglob("*.blob"))
    assert blobs
    for blob in blobs:
        content = bytearray(blob.read_bytes())
        middle = slice(len(content) // 4, len(content) // 2)
        content[middle] = bytes(byte ^ 0x55 for byte in content[middle])
        blob.write_bytes(content)
    np.testing.assert_array_equal(load(checkpoint, "openvino")(make_request()), expected)


@pytest.mark.parametrize("number", ["1" + 400 * "0", '"fast"', "NaN", "-1", "[]"])
def test_a_verdict_with_absurd_numbers_is_made_again(checkpoint: Path, exported: Path, number: str) -> None:
    path = self_check._verdict_path(exported, F32)
    good = json.loads(path.read_text())
    path.write_text(f'{{"error": 1e-7, "plan_ms": {number}, "reference_ms": 2.0}}')
    assert (
        "a plan takes openvino" in choose_engine(checkpoint, RuntimeConfig(device="cpu", precision="f32"))[1]
    )
    assert json.loads(path.read_text()).keys() == good.keys()
    assert 0.0 < json.loads(path.read_text())["plan_ms"] < 1e6


def test_each_sampler_has_its_own_verdict(checkpoint: Path, exported: Path) -> None:
    before = set(exported.glob("verdict-*.json"))
    settings = RuntimeConfig(device="cpu", precision="f32", sampler_iterations=7, sampler_spacing="linspace")
    choose_engine(checkpoint, settings)
    assert len(set(exported.glob("verdict-*.json")) - before) == 1


def test_an_export_that_was_removed_after_it_was_chosen_is_made_again(
    checkpoint: Path, exported: Path, make_request: Callable[..., PlanRequest]
) -> None:
    runtime, _ = choose_engine(checkpoint, F32)
    assert runtime.engine == "openvino"
    shutil.rmtree(exported)
    assert load_engine(checkpoint, runtime)(make_request()).shape


def test_a_link_to_nothing_in_the_place_of_an_export_is_replaced(checkpoint: Path, exported: Path) -> None:
    shutil.rmtree(exported)
    exported.symlink_to(exported.parent / "gone")
    assert "a plan takes openvino" in choose_engine(checkpoint, F32)[1]
    assert exported.is_dir()
    assert not exported.is_symlink()


def test_an_export_that_cannot_be_loaded_is_one_line(checkpoint: Path, exported: Path) -> None:
    runtime, _ = choose_engine(checkpoint, F32)
    assert runtime.engine == "openvino"
    (exported / "encoder_0.xml").unlink()  # after the choice, which verified it
    with pytest.raises(
        ConfigError, match=r"^engine openvino: .* cannot be loaded .*; set engine to auto or torch$"
    ):
        load_engine(checkpoint, runtime)


def test_a_precision_that_fails_leaves_the_export_of_another(
    checkpoint: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for verdict in exported.glob("verdict-bf16-*.json"):
        verdict.unlink()
    files = sorted(exported.iterdir())
    broken = a_package(tmp_path / "packages", "raise RuntimeError('no such processor')", "torch")
    with monkeypatch.context() as other:
        other.setenv("PYTHONPATH", broken)
        runtime, why = choose_engine(checkpoint, RuntimeConfig(device="cpu", precision="bf16"))
    assert (runtime.engine, runtime.precision) == ("torch", "f32")
    assert why == "openvino bf16 was not taken: its self-check failed: RuntimeError: no such processor"
    assert sorted(exported.iterdir()) == files
    assert (
        "a plan takes openvino" in choose_engine(checkpoint, RuntimeConfig(device="cpu", precision="f32"))[1]
    )


FULL = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
    "from dp_ros.inference.engine import choose_engine, load_engine; "
    "from dp_ros.schema import ConfigError, RuntimeConfig; "
    "runtime, why = choose_engine(sys.argv[1], RuntimeConfig(device='cpu', precision='f32'));"
    "print(runtime.engine, why)\n"
    "try: load_engine(sys.argv[1], RuntimeConfig(engine='openvino', precision='f32'))\n"
    "except ConfigError as error: print(error)"
)


def test_a_full_disk_costs_a_line_and_a_named_engine_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: it fails in the same call, with another reason."""
    done = run(FULL, checkpoint, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    why = f"its self-check failed: {tmp_path / 'dp_ros' / 'engines'}: File too large"
    assert done.stdout.splitlines() == [
        f"torch openvino f32 was not taken: {why}",
        f"engine openvino: {why}; set engine to auto or torch",
    ]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_chosen_export_is_read_whole_only_once(checkpoint: Path, exported: Path) -> None:
    """Choosing verifies its hashes; the load that follows believes it, the one after that verifies again."""
    self_check._verdict_path(exported, F32).write_text(
        json.dumps({"error": 0.0, "plan_ms": 1.0, "reference_ms": 2.0})
    )
    opened: list[str] = []
    listeners.append(lambda path: opened.append(path) if path.endswith("denoiser.bin") else None)
    try:
        runtime, _ = choose_engine(checkpoint, RuntimeConfig(device="cpu", precision="f32"))
        assert runtime.engine == "openvino"
        load_engine(checkpoint, runtime)
        assert opened == [str(exported / "denoiser.bin")]
        load_engine(checkpoint, runtime)
        assert len(opened) == 2
    finally:
        listeners.clear()


listeners: list[
    Callable[[str], object]
] = []  # called with each file that Python opens; a hook cannot be removed


def _on_event(event: str, words: tuple[object, ...]) -> None:
    if event == "open" and listeners:
        for listener in listeners:
            listener(str(words[0]))


sys.addaudithook(_on_event)


def test_precision_is_bf16_where_the_processor_has_it_and_it_passes_its_check(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chosen(**runtime: Any) -> str:
        return choose_engine(checkpoint, RuntimeConfig(engine="openvino", threads=1, **runtime))[0].precision

    monkeypatch.setattr(engine_module, "has_bf16", lambda: False)
    assert chosen() == "f32"
    assert chosen(precision="bf16") == "bf16"
    monkeypatch.setattr(engine_module, "has_bf16", lambda: True)
    assert chosen() == "bf16"
    checked = engine_module.checked_engine

    def disagreeing(checkpoint: Path, runtime: RuntimeConfig, version: str) -> tuple[Path, Verdict]:
        if runtime.precision == "bf16":
            raise EngineCheckError("its actions differ")
        return checked(checkpoint, runtime, version)

    monkeypatch.setattr(engine_module, "checked_engine", disagreeing)
    assert chosen() == "f32"


def test_torch_has_no_bf16(checkpoint: Path) -> None:
    with pytest.raises(
        ConfigError, match="engine torch has no precision bf16: set precision or engine to auto"
    ):
        load(checkpoint, "torch", precision="bf16")


def test_in_real_time_half_of_the_cores_plan(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))

    def threads(**runtime: Any) -> int:
        return choose_engine(checkpoint, RuntimeConfig(engine="torch", **runtime))[0].threads

    assert threads(mode="realtime") == 3
    assert threads(mode="realtime", threads=5) == 5
    assert threads(mode="lockstep") == 0


def test_an_engine_that_was_named_and_cannot_be_used_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        ConfigError, match=r"^engine openvino: .*Not a directory.*set engine to auto or torch"
    ) as caught:
        load(checkpoint, "openvino")
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_costs_a_line(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    runtime, why = choose_engine(checkpoint, RuntimeConfig(device="cpu", precision="f32"))
    assert runtime.engine == "torch"
    assert why.startswith("openvino f32 was not taken: ")


def test_damaged_weights_are_refused_although_the_export_is_there(checkpoint: Path, tmp_path: Path) -> None:
    load(checkpoint, "openvino")
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    weights = bytearray((copy / "policy.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "policy.safetensors").write_bytes(weights)
    with pytest.raises(Exception, match=r"policy\.safetensors is not the file that config.json describes"):
        load(copy, "openvino")
