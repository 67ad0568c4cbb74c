"""Configs: an invalid one cannot exist, and what is said about it is one line that helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dp_ros.schema import (
    ActionConfig,
    BridgeConfig,
    CollectConfig,
    Config,
    ConfigError,
    DiffusionConfig,
    EncoderConfig,
    GateConfig,
    Horizons,
    JoyLayout,
    KeyboardConfig,
    PolicyConfig,
    RuntimeConfig,
    TeleopConfig,
    TrainConfig,
    TransformerConfig,
    UNetConfig,
    load_yaml,
    override,
    parse,
    parse_assignment,
)

MODELS: list[type[Config]] = [
    ActionConfig,
    BridgeConfig,
    CollectConfig,
    DiffusionConfig,
    EncoderConfig,
    GateConfig,
    Horizons,
    JoyLayout,
    KeyboardConfig,
    PolicyConfig,
    RuntimeConfig,
    TeleopConfig,
    TrainConfig,
    TransformerConfig,
    UNetConfig,
]


def refusal(model: type[Config], data: dict[str, Any]) -> str:
    """What `parse` says against `data`, checked to be one line that begins with where."""
    with pytest.raises(ConfigError) as caught:
        parse(model, data, where="x.yaml")
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("x.yaml: ")
    return message


@pytest.mark.parametrize("model", MODELS)
def test_defaults_are_valid_and_frozen(model: type[Config]) -> None:
    config = parse(model, {}, where="defaults")
    with pytest.raises(ValueError, match="frozen"):
        setattr(config, next(iter(model.model_fields)), None)


@pytest.mark.parametrize(
    ("model", "data", "key", "near"),
    [
        (TrainConfig, {"batchsize": 1}, "batchsize", "batch_size"),
        (TrainConfig, {"policy": {"horizon": {}}}, "policy.horizon", "horizons"),
        (TrainConfig, {"policy": {"encoder": {"hight_px": 64}}}, "policy.encoder.hight_px", "height_px"),
        (TrainConfig, {"policy": {"horizons": {"To": 1}}}, "policy.horizons.To", "T_o"),
        (RuntimeConfig, {"gate": {"max_speed": 1}}, "gate.max_speed", "max_speed_m_s"),
        # Of another section: the whole dotted key.
        (TrainConfig, {"rate_hz": 10}, "rate_hz", "policy.rate_hz"),
        (TrainConfig, {"policy": {"cameras": ["a"]}}, "policy.cameras", "policy.encoder.cameras"),
        (TrainConfig, {"policy": {"hight_px": 64}}, "policy.hight_px", "policy.encoder.height_px"),
        (TrainConfig, {"policy": {"batch_size": 8}}, "policy.batch_size", "batch_size"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest_valid_one(
    model: type[Config], data: dict[str, Any], key: str, near: str
) -> None:
    message = refusal(model, data)
    assert f"unknown key '{key}'" in message
    assert f"did you mean '{near}'?" in message


def test_unknown_key_unlike_any_other_is_answered_with_the_valid_ones() -> None:
    message = refusal(TrainConfig, {"policy": {"horizons": {"zzzz": 1}}})
    assert "unknown key 'policy.horizons.zzzz'; valid keys: T_o, T_p, T_a" in message


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (Horizons, {"T_o": 3, "T_p": 8, "T_a": 7}, "T_o - 1 + T_a = 9 actions are needed but T_p = 8"),
        (Horizons, {"T_o": 0}, "T_o"),
        (Horizons, {"T_a": "many"}, "T_a"),
        (EncoderConfig, {"cameras": ["a", "b", "a"]}, "names one twice"),
        (EncoderConfig, {"cameras": []}, "cameras"),
        (EncoderConfig, {"cameras": ["front/left"]}, "cameras.0"),
        (EncoderConfig, {"height_px": 64}, "crop 208x208 px is larger than the image 224x64 px"),
        (EncoderConfig, {"width_px": 200}, "crop 208x208 px is larger than the image 200x224 px"),
        (EncoderConfig, {"stages": 5}, "stages"),
        (EncoderConfig, {"crop_width_px": 32}, "crop 32x208 px is one cell after 4 stages"),
        (EncoderConfig, {"fit": "stretch"}, "fit: Input should be 'same', 'crop' or 'pad'"),
        (EncoderConfig, {"height_px": 0}, "height_px"),
        (EncoderConfig, {"pictures": {"gripperPOV": {"height_px": 90}}}, "give both width_px and height_px"),
        (
            EncoderConfig,
            {"pictures": {"gripperPOV": {"height_px": 24, "width_px": 48}}},
            "camera 'gripperPOV': 48x24 px is too small: the sides must have 32 px",
        ),
        (
            EncoderConfig,
            {"pictures": {"gripperPOV": {"height_px": 90, "width_px": 160, "crop_width_px": 170}}},
            "camera 'gripperPOV': crop 170x84 px is larger than the image 160x90 px",
        ),
        (
            EncoderConfig,
            {"pictures": {"gripperPOV": {"height_px": 32, "width_px": 160}}},
            "camera 'gripperPOV': crop 149x32 px is one cell after 4 stages",
        ),
        (EncoderConfig, {"pictures": {"gripperPOV": {"hight_px": 90}}}, "did you mean 'height_px'?"),
        (ActionConfig, {"position": "polar"}, "position"),
        (ActionConfig, {"gripper": "delta"}, "gripper"),
        (UNetConfig, {"channels": [64, 100]}, "100 is not a multiple of groups 8"),
        (UNetConfig, {"channels": [-8]}, "-8 is not a multiple of groups 8"),
        (UNetConfig, {"channels": []}, "channels"),
        (UNetConfig, {"kernel_size": 4}, "kernel_size 4 must be odd"),
        (UNetConfig, {"step_embedding_dim": 17}, "step_embedding_dim"),
        (TransformerConfig, {"embedding_dim": 18}, "embedding_dim 18 is not a multiple of heads 4"),
        (TransformerConfig, {"embedding_dim": 9, "heads": 3}, "embedding_dim"),
        (TransformerConfig, {"layers": 0}, "layers"),
        (TransformerConfig, {"dropout": 1}, "dropout"),
        (TransformerConfig, {"embedding_dropout": -0.1}, "embedding_dropout"),
        (DiffusionConfig, {"sampler_iterations": 101}, "sampler_iterations 101 exceeds the 100"),
        (DiffusionConfig, {"sampler": "ddpm"}, "ddpm runs all 100 iterations"),
        (DiffusionConfig, {"iterations": 1, "sampler_iterations": 1}, "iterations"),
        (DiffusionConfig, {"clip": 0}, "clip"),
        (PolicyConfig, {"rate_hz": 0}, "rate_hz"),
        (PolicyConfig, {"rate_hz": float("nan")}, "rate_hz"),
        (PolicyConfig, {"rate_hz": float("inf")}, "rate_hz"),
        (PolicyConfig, {"network": "mlp"}, "network"),
        (
            PolicyConfig,
            {"transformer": {}},
            "network is the unet, so 'transformer' would change nothing: remove",
        ),
        (PolicyConfig, {"network": "transformer", "unet": {}}, "or set network to unet"),
        (CollectConfig, {"noise": [0.1, -0.1]}, "negative standard deviation"),
        (CollectConfig, {"noise": []}, "noise"),
        (CollectConfig, {"episodes": 0}, "episodes"),
        (TrainConfig, {"epochs": None}, "neither steps nor epochs"),
        (TrainConfig, {"betas": [0.9, 1.0]}, "betas.1"),
        (TrainConfig, {"betas": [-0.1, 0.9]}, "betas.0"),
        (TrainConfig, {"ema_max": 1}, "ema_max"),
        (TrainConfig, {"lr": 0}, "lr"),
        (TrainConfig, {"encoder_weight_decay": -1}, "encoder_weight_decay"),
        (GateConfig, {"workspace_low_m": [0, 0, 0.6]}, "workspace z: low 0.6 is not below high 0.6"),
        (GateConfig, {"workspace_low_m": [0, 0]}, "workspace_low_m"),
        (GateConfig, {"workspace_high_m": [1, 1, float("nan")]}, "workspace_high_m.2"),
        (GateConfig, {"max_speed_m_s": 0}, "max_speed_m_s"),
        (GateConfig, {"max_obs_age_s": float("inf")}, "max_obs_age_s"),
        (RuntimeConfig, {"mode": "fast"}, "mode"),
        (BridgeConfig, {"max_steps": 100_001}, "max_steps"),
        (JoyLayout, {"open_button": 0}, "open_button and close_button are both 0"),
        (JoyLayout, {"axes": [0, 1, 1]}, "axes [0, 1, 1]: an index is used twice"),
        (JoyLayout, {"gripper_axis": 4}, "axes [0, 1, 4, 4]: an index is used twice"),
        (JoyLayout, {"directions": [1, 2, 1]}, "directions.1"),
        (TeleopConfig, {"axis_speed_m_s": [0.1, -0.1, 0.1]}, "reverse an axis in layout.directions"),
        (
            TeleopConfig,
            {"max_speed_m_s": 2.0},
            "max_speed_m_s 2 is more than gate.max_speed_m_s 1.6",
        ),
        (TeleopConfig, {"joy_timeout_s": float("inf")}, "joy_timeout_s"),
        (KeyboardConfig, {"repeat_hold_s": 0}, "repeat_hold_s"),
        (TrainConfig, {"policy": 3}, "policy"),
        (TrainConfig, {"policy": None}, "policy"),
    ],
)
def test_invalid_value_is_refused_in_one_line_that_names_it(
    model: type[Config], data: dict[str, Any], says: str
) -> None:
    assert says in refusal(model, data)


def test_several_errors_are_all_in_the_one_line_and_many_are_counted() -> None:
    three = refusal(TrainConfig, {"lr": 0, "seed": -1, "batch_size": 0})
    assert all(f"{key}: Input should be" in three for key in ("lr", "seed", "batch_size"))
    many = refusal(TrainConfig, {f"unknown_{i}": i for i in range(10)})
    assert many.count("unknown key") == 6
    assert many.endswith("(and 4 more)")


@given(T_o=st.integers(1, 16), T_a=st.integers(1, 48), extra=st.integers(0, 1))
def test_executed_part_answers_the_newest_frame_and_has_T_a_actions(T_o: int, T_a: int, extra: int) -> None:
    horizons = Horizons(T_o=T_o, T_a=T_a, T_p=T_o - 1 + T_a + extra)
    chunk = list(range(-(T_o - 1), horizons.T_p - (T_o - 1)))  # ticks after the newest frame
    assert chunk[horizons.executed] == list(range(T_a))


@given(T_o=st.integers(2, 16), T_a=st.integers(1, 48))
def test_horizons_that_predict_one_action_too_few_cannot_exist(T_o: int, T_a: int) -> None:
    with pytest.raises(ValueError, match="raise T_p or lower T_a"):
        Horizons(T_o=T_o, T_a=T_a, T_p=T_o - 2 + T_a)


# Any policy: built so that the rules between its parts hold.
horizons = st.builds(
    lambda T_o, T_a, more: {"T_o": T_o, "T_a": T_a, "T_p": min(64, T_o - 1 + T_a + more)},
    st.integers(1, 16),
    st.integers(1, 32),
    st.integers(0, 16),
)
encoders = st.builds(
    lambda cameras, crop, margin, proprioception: {
        "cameras": cameras,
        "crop_height_px": crop[0],
        "crop_width_px": crop[1],
        "height_px": crop[0] + margin,
        "width_px": crop[1] + margin,
        "proprioception": proprioception,
    },
    st.lists(st.from_regex(r"\A[A-Za-z][A-Za-z0-9_]{0,8}\Z"), min_size=1, max_size=4, unique=True),
    st.tuples(st.integers(33, 300), st.integers(33, 300)),
    st.integers(0, 100),
    st.booleans(),
)
diffusions = st.builds(
    lambda K, share, ddpm: {
        "iterations": K,
        "sampler": "ddpm" if ddpm else "ddim",
        "sampler_iterations": K if ddpm else max(2, K * share // 100),
    },
    st.integers(2, 1000),
    st.integers(1, 100),
    st.booleans(),
)
networks = st.one_of(
    st.lists(st.integers(1, 16), min_size=1, max_size=5).map(
        lambda n: {"unet": {"channels": [8 * i for i in n]}}
    ),
    st.builds(
        lambda heads, size, dropout: {
            "network": "transformer",
            "transformer": {"heads": heads, "embedding_dim": 8 * heads * size, "dropout": dropout},
        },
        st.integers(1, 32),
        st.integers(1, 8),
        st.floats(0, 1, exclude_max=True),
    ),
)
policies = st.builds(
    lambda network, **parts: {**parts, **network},
    task=st.text(max_size=12),
    rate_hz=st.floats(0.1, 1000),
    horizons=horizons,
    encoder=encoders,
    action=st.sampled_from(["absolute", "relative", "delta"]).map(lambda kind: {"position": kind}),
    network=networks,
    diffusion=diffusions,
)


@given(policies)
def test_a_dumped_policy_parses_to_itself(data: dict[str, Any]) -> None:
    config = parse(PolicyConfig, data, where="x")
    assert parse(PolicyConfig, config.model_dump(), where="x") == config
    written = json.dumps(config.model_dump(mode="json"))
    assert parse(PolicyConfig, json.loads(written), where="x") == config


@pytest.mark.parametrize(("network", "other"), [("unet", "transformer"), ("transformer", "unet")])
def test_dumped_policy_has_the_settings_of_its_network_alone(network: str, other: str) -> None:
    for dumped in (
        PolicyConfig.model_validate({"network": network}).model_dump(),
        TrainConfig.model_validate({"policy": {"network": network}}).model_dump(mode="json")["policy"],
    ):
        assert network in dumped
        assert other not in dumped


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


def test_yaml_is_read_and_dotted_overrides_win(tmp_path: Path) -> None:
    path = write(tmp_path, "lr: 1e-3\npolicy:\n  task: door-open-v3\n  unet: {groups: 4}\n")
    config = load_yaml(TrainConfig, path, {"policy.unet.groups": 2, "policy.horizons.T_a": 2})
    assert config.lr == 1e-3
    assert config.policy.task == "door-open-v3"
    assert config.policy.unet.groups == 2
    assert config.policy.horizons == Horizons(T_a=2)


def test_empty_yaml_is_the_defaults(tmp_path: Path) -> None:
    assert load_yaml(TrainConfig, write(tmp_path, "# nothing\n")) == TrainConfig()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n- b\n", "expected `key: value` lines, found a list"),
        ("42\n", "found a int"),
        ("a: [1, 2\nb: 3\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("\tlr: 1\n", "is not YAML"),
        ("lr: fast\n", "lr: "),
        ("1: 2\n", "1"),
        ("policy:\n  rate: 3\n", "unknown key 'policy.rate'; did you mean 'rate_hz'?"),
    ],
)
def test_yaml_error_is_one_line_with_the_file(tmp_path: Path, text: str, says: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_yaml(TrainConfig, path)
    assert str(caught.value).startswith(f"{path}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_yaml(TrainConfig, path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00lr")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_yaml(TrainConfig, binary)


def test_override_is_validated_and_leaves_the_original_alone() -> None:
    config = RuntimeConfig()
    changed = override(config, {"gate.max_speed_m_s": 0.5, "mode": "lockstep"})
    assert (changed.gate.max_speed_m_s, changed.mode) == (0.5, "lockstep")
    assert config == RuntimeConfig()
    with pytest.raises(ConfigError, match=r"^command line: unknown key 'gate.max_step'; did you mean"):
        override(config, {"gate.max_step": 0.5})
    with pytest.raises(ConfigError, match=r"^command line: gate.max_speed_m_s: .*greater than 0"):
        override(config, {"gate.max_speed_m_s": 0})


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("batch_size=32", "batch_size", 32),
        ("policy.task=door-open-v3", "policy.task", "door-open-v3"),
        ("policy.encoder.cameras=[a, b]", "policy.encoder.cameras", ["a", "b"]),
        ("a=b=c", "a", "b=c"),
        ("steps=", "steps", None),
    ],
)
def test_assignment_is_a_dotted_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize("text", ["batch_size", "=3", "a=[1", "a={"])
def test_assignment_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_assignment(text)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_camera_of_its_own_size_keeps_the_share_of_the_crop() -> None:
    encoder = EncoderConfig.model_validate(
        {
            "cameras": ["front", "wrist", "top"],
            "height_px": 96, "width_px": 96, "crop_height_px": 84, "crop_width_px": 84, "fit": "crop",
            "pictures": {
                "front": {"height_px": 720, "width_px": 1280, "fit": "pad"},
                "top": {"crop_height_px": 90},
            },
        }
    )  # fmt: skip
    assert [str(encoder.target(camera)) for camera in encoder.cameras] == [
        "1280x720 px (pad)",
        "96x96 px (crop)",
        "96x96 px (crop)",
    ]
    assert [encoder.crop(camera) for camera in encoder.cameras] == [(630, 1120), (84, 84), (90, 84)]
    assert encoder.largest_size() == (720, 1280)
    again = parse(EncoderConfig, json.loads(encoder.model_dump_json()), where="test")
    assert again == encoder


def test_encoder_of_one_size_is_written_as_before_there_were_several() -> None:
    assert not {"fit", "pictures"} & EncoderConfig().model_dump().keys()


def test_limit_per_tick_of_older_files_is_converted_in_one_line() -> None:
    with pytest.raises(
        ConfigError, match=r"0.005 m in a tick is 0.4 m/s at a rate of 80 Hz; give max_speed_m_s: 0.4"
    ) as caught:
        parse(RuntimeConfig, {"gate": {"max_step_m": 0.005}}, where="robot.yaml")
    assert str(caught.value).startswith(
        "robot.yaml: gate: max_step_m is a limit per tick and was replaced by"
    )
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="give the step times the control rate"):
        parse(TeleopConfig, {"gate": {"max_step_m": "fast"}}, where="teleop.yaml")


@pytest.mark.parametrize(
    ("new", "loose"),
    [
        ({}, []),
        ({"max_speed_m_s": 0.3, "max_acceleration_m_s2": 1.0, "max_frozen_s": 0.1}, []),
        ({"max_speed_m_s": 0.5}, ["max_speed_m_s"]),
        ({"max_acceleration_m_s2": 0.0, "max_jerk_m_s3": 0.0}, ["max_acceleration_m_s2", "max_jerk_m_s3"]),
        ({"workspace_low_m": (-0.5, 0.2, 0.0)}, ["workspace_low_m"]),
        ({"workspace_high_m": (0.4, 0.9, 0.5)}, []),
        ({"workspace_high_m": (0.4, 1.1, 0.5)}, ["workspace_high_m"]),
        ({"gripper_low": -1.0}, ["gripper_low"]),
        ({"gripper_high": 0.2}, []),
        ({"recover_s": 0.0}, ["recover_s"]),
        ({"ramp_s": 2.0}, []),
        ({"max_outside_m": 0.0}, []),
        ({"slowing": "axes"}, ["slowing"]),
    ],
    ids=str,
)
def test_limits_know_what_loosens_them(new: dict[str, Any], loose: list[str]) -> None:
    base = {
        "max_speed_m_s": 0.4,
        "max_acceleration_m_s2": 2.0,
        "max_jerk_m_s3": 40.0,
        "gripper_low": -0.5,
        "recover_s": 0.2,
    }
    assert GateConfig(**base).loosened(GateConfig(**{**base, **new})) == loose


def test_every_limit_has_a_direction() -> None:
    """A limit without one could be loosened on a moving arm. One that has none is never changed on it."""
    accelerating = GateConfig(max_acceleration_m_s2=1.0, max_jerk_m_s3=50.0)
    for jerk in (0.0, 20.0, 100.0):  # with less, an arm that accelerates goes on accelerating for longer
        assert accelerating.loosened(accelerating.model_copy(update={"max_jerk_m_s3": jerk})) == [
            "max_jerk_m_s3"
        ]
    exact = GateConfig(path_tolerance_m=0.0)  # 0 is the tightest of this one, and no limit of others
    assert exact.loosened(exact.model_copy(update={"path_tolerance_m": 0.01})) == ["path_tolerance_m"]
    for name, field in GateConfig.model_fields.items():
        if name in ("slowing", "max_jerk_m_s3"):
            continue
        value = field.get_default()
        step = 0.01
        changed = {-1: (), 1: ()}
        for sign in changed:
            moved = (
                tuple(v + sign * step for v in value)
                if isinstance(value, tuple)
                else (value or 1.0) + sign * step
            )
            base = GateConfig().model_copy(update={name: value or 1.0})
            changed[sign] = base.loosened(base.model_copy(update={name: moved}))
        assert sorted(map(len, changed.values())) == [0, 1], name
