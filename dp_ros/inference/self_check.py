"""Self-check of a fast engine against the reference, in a child process.

An engine is compiled code of another project. It may crash the process (OpenVINO does on some graphs), or be wrong on
a processor nobody tried. A child process exports it where that is needed, plans with it and with the reference on fixed
pictures and noise, and writes a verdict into the cache. A crash there costs a warning; a node would stop the robot.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dp_ros.control.planner import PlanRequest
from dp_ros.documents import read_json
from dp_ros.errors import UserError, message_of
from dp_ros.files import clear_leftovers, locked, replacing_folder, write_json
from dp_ros.inference import cache
from dp_ros.policy.checkpoint_config import WEIGHTS
from dp_ros.schema import PolicyConfig, RuntimeConfig

if TYPE_CHECKING:
    from dp_ros.inference.engine import Engine

# Largest difference of a normalised action from the reference, on random pictures, which no policy was trained on.
# f32: sums in another order, as with AVX-512, make 1.2e-4 of a network with random weights, because a sampler's first
# iteration divides by nearly zero, the square root of alpha_bar. A graph that is wrong differs by far more.
# bf16: 8 bits of mantissa. Over 100 paired episodes, models that differ by 0.06 to 0.14 do no worse: docs/speed.md.
TOLERANCE = {"f32": 5e-4, "bf16": 0.25}
_DECISIVE = {"sampler", "sampler_iterations", "sampler_spacing", "warm_start"}  # for a verdict
TIMEOUT_S = 300.0
REQUESTS = 4
SPACE = 4  # bytes of an export for each byte of the weights: they may be in f16, and are compiled, too


class EngineCheckError(UserError):
    """An engine that cannot be used here; one line with the reason."""


@dataclass(frozen=True)
class Verdict:
    """Outcome of a self-check that passed."""

    error: float  # largest difference of a normalised action
    plan_ms: float  # median, of a whole window
    reference_ms: float


def checked_engine(checkpoint: Path, runtime: RuntimeConfig, version: str) -> tuple[Path, Verdict]:
    """The folder of the engine `runtime.engine`, with what it exported, if anything, and its verdict.

    Both come from the cache, or from a child process that makes them. version: of the engine and what it runs on.
    EngineCheckError where the child crashes, disagrees with the reference, or cannot write.
    """
    wanted = cache.identity(checkpoint, runtime.engine, version)
    folder = cache.folder_of(wanted)
    if cache.problem(folder, wanted) is None and (verdict := _read_verdict(folder, runtime)):
        return folder, verdict
    with _one_at_a_time(folder.parent):  # another process may have made it meanwhile
        problem = cache.problem(folder, wanted)
        if problem is None and (verdict := _read_verdict(folder, runtime)):
            return folder, verdict
        if problem is not None:
            _remove(folder)
        return folder, _check_in_child(checkpoint, runtime, folder, wanted)


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    """So that two processes do not make the same, or slow each other while they are timed. EngineCheckError."""
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as lock:
        until_s, is_told = time.monotonic() + TIMEOUT_S, False
        while True:
            try:
                lock.enter_context(locked(root))
                break
            except BlockingIOError:
                if time.monotonic() > until_s:
                    raise EngineCheckError("another process has checked an engine for too long") from None
            if not is_told:
                print("dp_ros: waiting for another process that checks an engine", file=sys.stderr)
                is_told = True
            time.sleep(0.2)
        yield


def _verdict_path(folder: Path, runtime: RuntimeConfig) -> Path:
    """One verdict for each set of settings on which error and time depend."""
    settings = runtime.model_dump(mode="json", include=_DECISIVE)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return folder / f"verdict-{runtime.precision}-{digest}.json"


def _read_verdict(folder: Path, runtime: RuntimeConfig) -> Verdict | None:
    try:
        values = read_json(_verdict_path(folder, runtime))
        verdict = Verdict(**{name: float(value) for name, value in values.items()})
        has_passed = 0.0 <= verdict.error <= TOLERANCE[runtime.precision]
        is_timed = 0.0 < verdict.plan_ms < math.inf and 0.0 < verdict.reference_ms < math.inf
        return verdict if has_passed and is_timed else None
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return None


def _remove(folder: Path) -> None:
    """Remove an export, or the file or link in its place."""
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def _check_in_child(
    checkpoint: Path, runtime: RuntimeConfig, folder: Path, wanted: dict[str, Any]
) -> Verdict:
    task = {
        "checkpoint": str(Path(checkpoint).resolve()),
        "runtime": runtime.model_dump(mode="json"),
        "folder": str(folder),
        "identity": wanted,
    }
    try:
        verdict = _ask_child(task)
        write_json(_verdict_path(folder, runtime), asdict(verdict))  # only now: the child may die as it ends
    finally:
        clear_leftovers(folder)
        # An export that never passed is made again the next time: the disk may have been full.
        if not any(folder.glob("verdict-*.json")):
            shutil.rmtree(folder, ignore_errors=True)
    return verdict


def _ask_child(task: dict[str, Any]) -> Verdict:
    """EngineCheckError where the child does not end well."""
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(task), capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise EngineCheckError(f"its self-check took longer than {TIMEOUT_S:.0f} s") from None
    lines = done.stdout.strip().splitlines()
    if done.returncode < 0:
        raise EngineCheckError(f"its self-check died of {signal.Signals(-done.returncode).name}")
    if done.returncode or not lines:
        reason = done.stderr.strip().splitlines()
        raise EngineCheckError(f"its self-check failed: {reason[-1] if reason else 'no reason given'}")
    return Verdict(**json.loads(lines[-1]))


def fixed_requests(config: PolicyConfig) -> list[PlanRequest]:
    """The requests of the check: random pictures and states, the same each time."""
    from dp_ros.inference.engine import blank_request

    rng = np.random.default_rng(0)
    blank = blank_request(config)

    def noisy(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return rng.integers(0, 256, picture.shape, dtype=np.uint8)

    def unit(shape: tuple[int, ...]) -> NDArray[np.float32]:
        vector = rng.normal(size=shape).astype(np.float32)
        return vector / np.linalg.norm(vector)

    return [
        PlanRequest(
            tuple(tuple(map(noisy, frame)) for frame in blank.images),
            rng.uniform(-0.5, 0.5, blank.state.shape),
            blank.reference_m,
            0,
            (i,),
            instruction=None if blank.instruction is None else unit(blank.instruction.shape),
        )
        for i in range(REQUESTS)
    ]


def largest_error(engine: Engine, reference: Engine, half_range: NDArray[np.float64]) -> float:
    """Largest difference of a normalised action, over the fixed requests: also with known actions, and a guess."""
    requests = fixed_requests(reference.config)
    actions = np.zeros((reference.config.horizons.T_p, reference.config.action.dim))
    known = np.where(np.arange(len(actions))[:, None] < 2, actions, np.nan)
    requests += [replace(requests[0], committed=known), replace(requests[1], guess=actions)]
    errors = [np.abs((engine(request) - reference(request)) / half_range).max() for request in requests]
    return float(np.max(errors))  # NaN stays NaN


def _run(task: dict[str, Any]) -> Verdict:
    """Export where there is none, and compare: the work of the child."""
    checkpoint, folder = Path(task["checkpoint"]), Path(task["folder"])
    runtime = RuntimeConfig.model_validate(task["runtime"])
    load, device = _LOADERS[runtime.engine]
    is_missing = cache.problem(folder, task["identity"]) is not None
    engine = load(checkpoint, runtime, folder, task["identity"] if is_missing else None)
    from dp_ros.inference.torch_engine import TorchEngine

    reference = TorchEngine(checkpoint, runtime.model_copy(update={"device": device}))
    error = largest_error(engine, reference, reference.action_half_range)
    if not error <= TOLERANCE[runtime.precision]:
        raise EngineCheckError(
            f"its actions differ from the reference's by {error:.2g} of half their range, more than "
            f"{TOLERANCE[runtime.precision]:g}"
        )
    return Verdict(error, _median_ms(engine, reference.config), _median_ms(reference, reference.config))


def _openvino(
    checkpoint: Path, runtime: RuntimeConfig, folder: Path, missing: dict[str, Any] | None
) -> Engine:
    """Exported first, where `missing` is the identity that the export shall have."""
    if missing:
        cache.reserve(folder, SPACE * (checkpoint / WEIGHTS).stat().st_size)
    from dp_ros.inference.export import export
    from dp_ros.inference.openvino_engine import OpenVinoEngine
    from dp_ros.policy.checkpoint import load_checkpoint

    if missing:
        with replacing_folder(folder) as staging:
            export(load_checkpoint(checkpoint), staging, "openvino")
            cache.seal(staging, missing)
        cache.prune(folder)
    return OpenVinoEngine(checkpoint, runtime, folder)


def _cuda(checkpoint: Path, runtime: RuntimeConfig, folder: Path, missing: dict[str, Any] | None) -> Engine:
    """Nothing is exported: graphs live in the memory of a GPU. The folder keeps the verdict."""
    from dp_ros.inference.cuda_engine import CudaEngine

    if missing:
        with replacing_folder(folder) as staging:
            cache.seal(staging, missing)
        cache.prune(folder)
    return CudaEngine(checkpoint, runtime)


_LOADERS = {"openvino": (_openvino, "cpu"), "cuda": (_cuda, "cuda")}  # and where the reference computes


def _median_ms(engine: Engine, config: PolicyConfig) -> float:
    """Median time of a plan, each of new pictures."""
    times = []
    for request in 2 * fixed_requests(config):
        began = time.perf_counter()
        engine(request)
        times.append(time.perf_counter() - began)
    return 1e3 * median(times)


def _main() -> int:
    try:
        print(json.dumps(asdict(_run(json.loads(sys.stdin.read())))))
    except Exception as error:
        line = message_of(error) or f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(line, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
