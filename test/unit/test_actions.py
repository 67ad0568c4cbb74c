"""Action kinds: what the network predicts and what the arm is told are one thing, seen two ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dp_ros.actions import PositionKind, decode_positions, encode_positions
from dp_ros.schema import Horizons

KINDS: tuple[PositionKind, ...] = ("absolute", "relative", "delta")
metres = st.floats(-2, 2)


@st.composite
def demonstrations(draw: st.DrawFn) -> dict[str, Any]:
    """Ticks of an episode around `now`: some before it began, some after it ended."""
    T_o, T_a = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    T_p = T_o - 1 + T_a + draw(st.integers(0, 3))
    before, after = draw(st.integers(0, T_o - 1)), draw(st.integers(0, T_p - T_o))
    padded = np.zeros(T_p, dtype=bool)
    padded[:before] = True
    padded[T_p - after :] = True
    return {
        "horizons": Horizons(T_o=T_o, T_p=T_p, T_a=T_a),
        "padded": padded,
        "steps_m": draw(arrays(np.float64, (T_p, 3), elements=st.floats(-0.05, 0.05))),
        "executed_m": draw(arrays(np.float64, (T_p, 3), elements=metres)),
    }


@given(demonstrations(), st.sampled_from(KINDS))
def test_decoding_what_was_encoded_gives_the_commands_back(demo: dict[str, Any], kind: PositionKind) -> None:
    """Without noise the command before each tick is the label of the tick before: the path is the commands."""
    horizons, none = demo["horizons"], np.zeros(demo["horizons"].T_p, dtype=bool)
    start_m = demo["executed_m"][0]
    action_m = start_m + np.cumsum(demo["steps_m"], axis=0)
    previous_m = np.concatenate([[start_m], action_m[:-1]])
    chunk = encode_positions(action_m, previous_m, none, horizons, kind)
    decoded = decode_positions(chunk, previous_m[horizons.T_o - 1], horizons, kind)
    np.testing.assert_allclose(decoded, action_m, atol=1e-12)


@given(demonstrations())
def test_absolute_relative_and_delta_mean_the_same_commands(demo: dict[str, Any]) -> None:
    horizons, previous_m = demo["horizons"], demo["executed_m"]
    reference_m = previous_m[horizons.T_o - 1]
    decoded = [
        decode_positions(
            encode_positions(previous_m + demo["steps_m"], previous_m, demo["padded"], horizons, kind),
            reference_m,
            horizons,
            kind,
        )
        for kind in KINDS
    ]
    np.testing.assert_allclose(decoded[1], decoded[0], atol=1e-12)
    np.testing.assert_allclose(decoded[2], decoded[0], atol=1e-12)


@given(demonstrations())
def test_noise_in_what_was_executed_never_enters_a_label(demo: dict[str, Any]) -> None:
    """However the executed commands were perturbed, the relative path is the sum of the expert's clean steps."""
    horizons, padded = demo["horizons"], demo["padded"]
    now = horizons.T_o - 1
    path = encode_positions(
        demo["executed_m"] + demo["steps_m"], demo["executed_m"], padded, horizons, "relative"
    )
    steps_m = np.where(padded[:, None], 0.0, demo["steps_m"])
    for i in range(horizons.T_p):
        expected = steps_m[now : i + 1].sum(0) if i >= now else -steps_m[i + 1 : now].sum(0)
        np.testing.assert_allclose(path[i], expected, atol=1e-12)


@given(demonstrations(), st.sampled_from(KINDS))
def test_the_arm_holds_outside_the_episode(demo: dict[str, Any], kind: PositionKind) -> None:
    horizons, padded, previous_m = demo["horizons"], demo["padded"], demo["executed_m"]
    chunk = encode_positions(previous_m + demo["steps_m"], previous_m, padded, horizons, kind)
    commands_m = decode_positions(chunk, previous_m[horizons.T_o - 1], horizons, kind)
    for i in range(1, horizons.T_p):
        if padded[i]:
            np.testing.assert_allclose(commands_m[i], commands_m[i - 1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_encoded_and_decoded_row_by_row(kind: PositionKind) -> None:
    rng = np.random.default_rng(0)
    horizons = Horizons()
    action_m, previous_m = rng.normal(size=(2, 5, horizons.T_p, 3))
    padded = rng.random((5, horizons.T_p)) < 0.3
    reference_m = rng.normal(size=(5, 3))
    chunks = encode_positions(action_m, previous_m, padded, horizons, kind)
    commands = decode_positions(chunks, reference_m, horizons, kind)
    for b in range(5):
        chunk = encode_positions(action_m[b], previous_m[b], padded[b], horizons, kind)
        np.testing.assert_array_equal(chunks[b], chunk)
        np.testing.assert_array_equal(commands[b], decode_positions(chunk, reference_m[b], horizons, kind))


def test_relative_chunk_moves_with_its_reference_and_an_absolute_one_does_not() -> None:
    horizons, chunk = Horizons(), np.random.default_rng(0).normal(size=(8, 3))
    here, there = np.zeros(3), np.array([0.1, -0.2, 0.3])
    for kind in ("relative", "delta"):
        moved = decode_positions(chunk, there, horizons, kind) - decode_positions(chunk, here, horizons, kind)
        np.testing.assert_allclose(moved, np.tile(there, (8, 1)), atol=1e-12)
    np.testing.assert_array_equal(decode_positions(chunk, there, horizons, "absolute"), chunk)


def test_hand_made_path() -> None:
    """Steps 1, 2, 4, 8 with T_o = 2: the path is zero just before now, so its first action is minus nothing."""
    horizons = Horizons(T_o=2, T_p=4, T_a=2)
    previous_m = np.array([[10.0, 0, 0], [20, 0, 0], [30, 0, 0], [40, 0, 0]])
    action_m = previous_m + np.array([[1.0, 0, 0], [2, 0, 0], [4, 0, 0], [8, 0, 0]])
    none = np.zeros(4, dtype=bool)
    relative = encode_positions(action_m, previous_m, none, horizons, "relative")
    np.testing.assert_array_equal(relative[:, 0], [0, 2, 6, 14])
    absolute = encode_positions(action_m, previous_m, none, horizons, "absolute")
    np.testing.assert_array_equal(absolute[:, 0], [20, 22, 26, 34])
    delta = encode_positions(action_m, previous_m, none, horizons, "delta")
    np.testing.assert_array_equal(delta[:, 0], [1, 2, 4, 8])
