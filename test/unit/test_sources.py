"""Values of a config from a file and options: later ones win, and an error names the source of each value."""

from __future__ import annotations

from pathlib import Path

import pytest

from dp_ros.schema import AuditConfig, ConfigError, Horizons, Layers, Settings, Source, TrainConfig


def layers(path: Path, text: str, *assignments: str, option: str = "--set") -> Layers:
    path.write_text(text)
    made = Layers()
    made.add_file(path)
    made.assign(assignments, option)
    return made


def refusal(made: Layers) -> str:
    with pytest.raises(ConfigError) as caught:
        made.settings(TrainConfig)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_option_wins_over_the_file_and_each_value_has_its_source(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    made = layers(
        path, "lr: 1e-3\npolicy:\n  rate_hz: 20\n  unet: {groups: 4}\n", "policy.rate_hz=10", "lr=2"
    )
    settings = made.settings(TrainConfig)
    assert (settings.config.policy.rate_hz, settings.config.lr) == (10, 2)
    assert settings.source("policy.rate_hz") == "--set policy.rate_hz=10"
    assert settings.source("policy.unet.groups") == f"{path}: line 4"
    assert settings.source("policy.encoder.width_px") == "default"
    assert settings.is_given("policy.rate_hz")
    assert not settings.is_given("policy.encoder.width_px")


def test_values_of_a_preset_are_not_given_by_a_user(tmp_path: Path) -> None:
    path = tmp_path / "preset.yaml"
    path.write_text("policy: {rate_hz: 20}\nseed: 3\n")
    made = Layers()
    made.add_file(path, is_default=True)
    made.assign(["seed=4"])
    settings = made.settings(TrainConfig)
    assert (settings.is_given("policy.rate_hz"), settings.is_given("seed")) == (False, True)


def test_mapping_replaces_the_values_below_it_and_their_sources(tmp_path: Path) -> None:
    made = layers(tmp_path / "a.yaml", "policy: {horizons: {T_o: 3, T_a: 2}}\n", "policy.horizons={T_a: 3}")
    settings = made.settings(TrainConfig)
    assert settings.config.policy.horizons == Horizons(T_a=3)
    assert settings.source("policy.horizons.T_o") == "default"
    assert settings.source("policy.horizons.T_a") == "--set policy.horizons={T_a: 3}"


def test_all_errors_are_listed_and_each_names_its_own_source(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    line = refusal(
        layers(path, "seed: 1\nlr: -1\nbatch_sise: 3\n", "rate_hz=10", "steps=none", option="--train")
    )
    assert "--train rate_hz=10: unknown key 'rate_hz'; did you mean 'policy.rate_hz'?" in line
    assert "--train steps=none: Input should be a valid integer" in line
    assert f"{path}: line 2: lr: Input should be greater than 0 (got -1)" in line
    assert f"{path}: line 3: unknown key 'batch_sise'; did you mean 'batch_size'?" in line
    assert line.count(str(path)) == 2


@pytest.mark.parametrize(
    ("assignments", "begins"),
    [
        (
            ("policy.encoder.crop_width_px=300",),
            "--set policy.encoder.crop_width_px=300 and {path}: policy.encoder: crop",
        ),
        (("epochs=null", "seed=3"), "--set epochs=null: neither steps nor epochs"),
        (
            ("policy.network=transformer",),
            "--set policy.network=transformer and {path}: policy: the network is",
        ),
        (
            ("policy.encoder.cameras=[a, b/c]",),
            "--set policy.encoder.cameras=[a, b/c]: policy.encoder.cameras.1: ",
        ),
        (("polcy.rate_hz=3",), "--set polcy.rate_hz=3: unknown key 'polcy'; did you mean 'policy'?"),
        (("steps.x=3",), "--set steps.x=3: steps: Input should be a valid integer"),
    ],
)
def test_error_about_several_values_names_the_options_among_them(
    tmp_path: Path, assignments: tuple[str, ...], begins: str
) -> None:
    path = tmp_path / "mine.yaml"
    encoder = "{width_px: 96, height_px: 96, crop_height_px: 84, crop_width_px: 84}"
    text = f"policy:\n  encoder: {encoder}\n  unet: {{groups: 4}}\n"
    assert refusal(layers(path, text, *assignments)).startswith(begins.format(path=path))


def test_default_of_a_code_path_is_named_as_such() -> None:
    settings = Settings.of(AuditConfig(), "somewhere")
    assert settings.source("max_gap_s") == "somewhere"
    made = Layers.of(settings)
    made.add("max_gap_s", 0.0, Source("--gap"))
    with pytest.raises(ConfigError, match=r"^--gap: max_gap_s: Input should be greater than 0"):
        made.settings(AuditConfig)
