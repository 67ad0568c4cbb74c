"""The table of engines: every row keeps the contract of `Engine`, and a new row can be served with."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dp_ros.actions import join
from dp_ros.control.controller import Controller
from dp_ros.control.planner import PlanRequest, PlanWorker
from dp_ros.control.safety import Verdict
from dp_ros.inference.cuda_engine import CudaEngine
from dp_ros.inference.engine import BF16_ENGINES, ENGINES, Engine, crop, load_engine
from dp_ros.policy.checkpoint import load_checkpoint, save_checkpoint
from dp_ros.policy.checkpoint_config import policy_config
from dp_ros.policy.ood import fit_ood_stats
from dp_ros.schema import ConfigError, GateConfig, PolicyConfig, RuntimeConfig
from dp_ros.streams import Frame

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[3]
HOME_M = (0.0, 0.6, 0.2)


def load(name: str, checkpoint: Path, **runtime: Any) -> Engine:
    """On the CPU, also the one that records graphs on a GPU."""
    settings = RuntimeConfig.model_validate({"engine": name, "device": "cpu", **runtime})
    return CudaEngine(checkpoint, settings, "cpu") if name == "cuda" else load_engine(checkpoint, settings)


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, checkpoint: Path) -> Engine:
    return load(request.param, checkpoint)


def test_chunk_has_the_shape_type_and_range_of_the_checkpoint(
    engine: Engine, make_request: Callable[..., PlanRequest], tiny_policy: PolicyConfig, stats: dict
) -> None:
    assert engine.config == tiny_policy
    chunk = engine(make_request())
    assert chunk.shape == (tiny_policy.horizons.T_p, tiny_policy.action.dim)
    assert chunk.dtype == np.float64
    assert (chunk >= np.array(stats["action"]["low"]) - 1e-6).all()
    assert (chunk <= np.array(stats["action"]["high"]) + 1e-6).all()


def test_chunk_follows_from_the_request_alone(
    engine: Engine, make_request: Callable[..., PlanRequest]
) -> None:
    first = engine(make_request())
    other = engine(make_request(seed=(0, 4)))
    np.testing.assert_array_equal(engine(make_request()), first)
    assert (other != first).any()


def test_chunk_repeats_the_committed_actions_and_the_others_answer_to_them(
    engine: Engine, make_request: Callable[..., PlanRequest], tiny_policy: PolicyConfig
) -> None:
    request, shape = make_request(), (tiny_policy.horizons.T_p, tiny_policy.action.dim)
    free = engine(request)
    nothing = np.full(shape, np.nan)
    np.testing.assert_allclose(engine(replace(request, committed=nothing)), free, atol=1e-6)
    committed = nothing.copy()
    committed[:3] = free[:3] + 0.1 * np.ptp(free)
    committed[0, -1] = np.nan  # of this action the gripper alone is free
    chunk = engine(replace(request, committed=committed))
    known = np.isfinite(committed)
    np.testing.assert_allclose(chunk[known], committed[known], atol=1e-6)
    assert (chunk[3:] != free[3:]).all()
    np.testing.assert_array_equal(engine(request), free)  # no state


@pytest.mark.parametrize("name", ENGINES)
def test_a_warm_plan_begins_at_its_guess_and_one_without_a_guess_at_noise(
    name: str, checkpoint: Path, make_request: Callable[..., PlanRequest]
) -> None:
    """An engine without the setting ignores the guess."""
    cold, warm = (load(name, checkpoint, warm_start=last) for last in (0, 2))
    request = make_request()
    chunk = cold(request)
    guessed, opposite = replace(request, guess=chunk), replace(request, guess=-chunk)
    np.testing.assert_array_equal(warm(request), chunk)
    np.testing.assert_array_equal(cold(guessed), chunk)
    assert np.abs(warm(guessed) - warm(opposite)).max() > 1e-3


@pytest.fixture(scope="module")
def described(checkpoint: Path, make_request: Callable[..., PlanRequest], tmp_path_factory: Any) -> Path:
    """The checkpoint with statistics of pictures like the newest frame of the request."""
    policy = load_checkpoint(checkpoint)
    folder = tmp_path_factory.mktemp("described") / "tiny"
    rng = np.random.default_rng(1)
    usual = []
    for view, picture in enumerate(make_request().images[-1]):
        cropped = crop(picture, policy.config.encoder.crop(policy.config.encoder.cameras[view]))
        images = torch.from_numpy(cropped.copy()).permute(2, 0, 1)[None].float() / 255.0
        with torch.inference_mode():
            keypoints = policy.encoder.describe_camera(view, images)[1].numpy()
        usual.append(keypoints + rng.normal(0, 1e-3, (200, keypoints.shape[1])))
    stats = fit_ood_stats([each[:150] for each in usual], [each[150:] for each in usual])
    return save_checkpoint(policy, folder, ood=stats)


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "f32") for name in ENGINES), *((name, "bf16") for name in BF16_ENGINES)]
)
def test_score_is_of_the_newest_frame_and_the_same_for_every_engine(
    name: str, precision: str, described: Path, make_request: Callable[..., PlanRequest]
) -> None:
    precision = precision if name in BF16_ENGINES else "auto"
    engine = load(name, described, precision=precision)
    request = make_request()
    engine(request)
    usual = engine.ood_scores(request.images[-1])
    assert usual is not None
    assert usual.shape == (2,)
    assert (usual < 1.0).all() if precision != "bf16" else np.isfinite(usual).all()
    other = replace(request, images=request.images[::-1])
    engine(other)
    strange = engine.ood_scores(other.images[-1])
    assert strange is not None
    assert (strange > 2.0).all()
    reference = load_engine(described, RuntimeConfig(engine="torch", device="cpu"))
    reference(other)
    wanted = reference.ood_scores(other.images[-1])
    np.testing.assert_allclose(strange, wanted, rtol=0.2 if precision == "bf16" else 1e-3)


def test_statistics_do_not_change_the_chunk_and_a_checkpoint_without_them_has_no_score(
    engine: Engine, described: Path, make_request: Callable[..., PlanRequest]
) -> None:
    request, name = make_request(), type(engine).__name__.removesuffix("Engine").lower()
    chunk = engine(request)
    assert engine.ood_scores(request.images[-1]) is None
    other = load(name, described)
    np.testing.assert_array_equal(other(request), chunk)


def test_limit_of_the_score_needs_statistics(checkpoint: Path, described: Path) -> None:
    """Refused when the policy is loaded, not at the first command."""
    runtime = RuntimeConfig(engine="torch", device="cpu", gate=GateConfig(max_ood_score=1.0))
    with pytest.raises(ConfigError, match=r"gate.max_ood_score 1: .* has no statistics") as caught:
        load_engine(checkpoint, runtime)
    assert "dp_ros ood-stats" in str(caught.value)
    assert "\n" not in str(caught.value)
    load_engine(described, runtime)


def test_engines_are_chosen_by_default() -> None:
    assert RuntimeConfig().engine == "auto"
    assert "auto" not in ENGINES


def test_unknown_engine_is_refused_with_the_known_ones(checkpoint: Path) -> None:
    with pytest.raises(
        ConfigError, match="engine 'tpu' is unknown: choose one of auto, torch, openvino, cuda"
    ) as caught:
        load_engine(checkpoint, RuntimeConfig(engine="tpu"))
    assert "\n" not in str(caught.value)


def test_torch_is_not_imported_before_an_engine_needs_it() -> None:
    program = "import sys, dp_ros.inference.engine; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr


class StraightAhead:
    """An engine without a network: each plan moves along x by `STEP_M` a tick. Notes the threads it runs on."""

    STEP_M = 0.004

    def __init__(self, checkpoint: str | Path, runtime: RuntimeConfig) -> None:
        self.config = policy_config(checkpoint)
        self.threads = {threading.get_ident()}
        self.requests: list[PlanRequest] = []

    def __call__(self, request: PlanRequest, /) -> NDArray[np.float64]:
        self.threads.add(threading.get_ident())
        self.requests.append(request)
        horizons = self.config.horizons
        steps = np.arange(horizons.T_p) - (horizons.T_o - 2)  # the newest frame's action is the first step
        position_m = np.outer(self.STEP_M * steps, [1.0, 0.0, 0.0])
        return join(position_m, np.full(horizons.T_p, 0.5))


def test_engine_that_is_only_in_the_table_drives_the_arm(
    checkpoint: Path,
    make_frame: Callable[..., Frame],
    make_request: Callable[..., PlanRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Loaded, warm and called as the policy node does it: in the one thread of a PlanWorker."""
    monkeypatch.setitem(ENGINES, "straight", StraightAhead)
    runtime = RuntimeConfig(mode="lockstep", engine="straight")
    loaded: list[Engine] = []

    def load() -> Engine:
        loaded.append(load_engine(checkpoint, runtime))
        return loaded[-1]

    planned = threading.Event()
    worker = PlanWorker(load, planned.set)
    try:
        (engine,) = loaded
        assert isinstance(engine, StraightAhead)
        controller = Controller(engine.config, runtime, worker)
        stamp_ns = 1_000_000_000
        assert controller.observe(make_frame(stamp_ns, HOME_M, images=make_request().images[-1]))
        assert controller.tick(stamp_ns) is None  # lockstep waits for the plan
        assert planned.wait(300)
        decision = controller.tick(stamp_ns)
    finally:
        worker.close()
    assert decision is not None
    assert decision.verdict is Verdict.PASS
    np.testing.assert_allclose(decision.command.position_m, np.add(HOME_M, [StraightAhead.STEP_M, 0, 0]))
    assert decision.command.gripper == 0.5
    assert [request.stamp_ns for request in engine.requests] == [stamp_ns]
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads
