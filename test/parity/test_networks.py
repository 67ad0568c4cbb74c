"""U-Net and encoder against independent computations; their shapes and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dp_ros.actions import ACTION_DIM, STATE_DIM
from dp_ros.policy.encoder import ObservationEncoder, SpatialSoftmax
from dp_ros.policy.unet import ConditionalUnet1D
from dp_ros.schema import EncoderConfig, UNetConfig

OBS_DIM = 6


@pytest.fixture(scope="module", autouse=True)
def _fixed_weights() -> None:
    torch.manual_seed(0)


def unet(channels: tuple[int, ...] = (8, 16, 32)) -> ConditionalUnet1D:
    return ConditionalUnet1D(
        ACTION_DIM, OBS_DIM, UNetConfig(channels=channels, groups=4, step_embedding_dim=8)
    )


@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 7), (1, 5)])
def test_spatial_softmax_is_the_expected_coordinate_of_the_softmax(height: int, width: int) -> None:
    pool = SpatialSoftmax(5, 3)
    with torch.no_grad():
        pool.temperature.fill_(0.7)
    x = torch.randn(2, 5, height, width)
    weight = pool.to_keypoints.weight.detach().numpy()[:, :, 0, 0].astype(np.float64)
    bias = pool.to_keypoints.bias.detach().numpy().astype(np.float64)
    expected = np.empty((2, 6))
    for b in range(2):
        for point in range(3):
            weights_sum = across = down = 0.0
            for row in range(height):
                for column in range(width):
                    logit = weight[point] @ x[b, :, row, column].numpy().astype(np.float64) + bias[point]
                    weights = np.exp(logit / 0.7)
                    weights_sum += weights
                    across += weights * (-1 + 2 * column / (width - 1))
                    down += weights * (-1 + 2 * row / (height - 1) if height > 1 else -1)
            expected[b, point], expected[b, 3 + point] = across / weights_sum, down / weights_sum
    np.testing.assert_allclose(pool(x).detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("T_p", range(1, 18))
def test_unet_keeps_the_length_of_any_chunk(T_p: int) -> None:
    out = unet()(torch.randn(2, T_p, ACTION_DIM), torch.tensor([0, 7]), torch.randn(2, OBS_DIM))
    assert out.shape == (2, T_p, ACTION_DIM)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("channels", [(8,), (8, 16), (8, 16, 32)])
def test_gradient_reaches_every_weight_of_the_unet(channels: tuple[int, ...]) -> None:
    model = unet(channels)
    model(
        torch.randn(3, 8, ACTION_DIM), torch.tensor([1, 5, 9]), torch.randn(3, OBS_DIM)
    ).square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_unet_depends_on_every_action_on_the_iteration_and_on_the_observation() -> None:
    model = unet()
    actions = torch.randn(1, 8, ACTION_DIM, requires_grad=True)
    obs = torch.randn(1, OBS_DIM, requires_grad=True)
    out = model(actions, torch.tensor([3]), obs)
    out[0, 0].sum().backward()
    assert (actions.grad != 0).all(dim=-1).all()
    assert (obs.grad != 0).all()
    assert not torch.allclose(out, model(actions, torch.tensor([4]), obs))


def test_rows_of_a_batch_do_not_see_each_other() -> None:
    model = unet()
    actions, k, obs = torch.randn(3, 8, ACTION_DIM), torch.tensor([0, 5, 9]), torch.randn(3, OBS_DIM)
    together = model(actions, k, obs)
    for b in range(3):
        alone = model(actions[b : b + 1], k[b : b + 1], obs[b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=0, atol=1e-5)


def reference_unet(weights: dict[str, Tensor], levels: int, x: Tensor, k: Tensor, obs: Tensor) -> Tensor:
    """Chi et al.'s conditional U-Net from its published description, in plain functions (T_p a multiple of the
    strides): x (B, T_p, D), with FiLM as `scale * features + shift` after the first block."""

    def linear(name: str, v: Tensor) -> Tensor:
        return v @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def conv(name: str, v: Tensor, stride: int = 1) -> Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv1d(v, weight, weights[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def block(name: str, v: Tensor) -> Tensor:
        v = conv(f"{name}.0", v)
        return F.mish(F.group_norm(v, 4, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]))

    def residual(name: str, v: Tensor) -> Tensor:
        film = linear(f"{name}.film.1", F.mish(cond))
        scale, shift = film[:, : film.shape[1] // 2, None], film[:, film.shape[1] // 2 :, None]
        skip = conv(f"{name}.skip", v) if f"{name}.skip.weight" in weights else v
        return block(f"{name}.second", block(f"{name}.first", v) * scale + shift) + skip

    half = weights["embed_step.mlp.0.weight"].shape[1] // 2
    angles = k[:, None] * torch.tensor([10_000.0 ** (-i / (half - 1)) for i in range(half)])
    embedded = linear("embed_step.mlp.0", torch.cat([angles.sin(), angles.cos()], dim=1))
    cond = torch.cat([linear("embed_step.mlp.2", F.mish(embedded)), obs], dim=1)
    v, skips = x.transpose(1, 2), []
    for level in range(levels):
        v = residual(f"down.{level}.1", residual(f"down.{level}.0", v))
        skips.append(v)
        if level < levels - 1:
            v = conv(f"downsample.{level}", v, stride=2)
    v = residual("middle.1", residual("middle.0", v))
    for level in range(levels - 1):
        v = torch.cat([v, skips.pop()], dim=1)
        v = residual(f"up.{level}.1", residual(f"up.{level}.0", v))
        name = f"upsample.{level}"
        v = F.conv_transpose1d(v, weights[f"{name}.weight"], weights[f"{name}.bias"], stride=2, padding=1)
    return conv("out.1", block("out.0", v)).transpose(1, 2)


def test_unet_and_its_gradients_are_what_the_paper_describes() -> None:
    model = unet()
    x, k, obs = torch.randn(2, 8, ACTION_DIM), torch.tensor([2, 90]), torch.randn(2, OBS_DIM)
    weights = dict(model.named_parameters())
    found, expected = model(x, k, obs), reference_unet(weights, 3, x, k, obs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), list(weights.values())) for out in (found, expected)]
    for name, mine, reference in zip(weights, *gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-4, atol=1e-4, msg=name)


def encoder_config(**changes: object) -> EncoderConfig:
    settings = {
        "cameras": ("left", "right"),
        "height_px": 64,
        "width_px": 64,
        "crop_height_px": 64,
        "crop_width_px": 64,
        "stages": 2,
        "keypoints": 4,
        "feature_dim": 8,
    }
    return EncoderConfig.model_validate({**settings, **changes})


@pytest.mark.parametrize("stages", [2, 3, 4])
def test_gradient_reaches_every_weight_of_the_encoder(stages: int) -> None:
    encoder = ObservationEncoder(encoder_config(stages=stages, cameras=("left",)), T_o=2)
    encoder(torch.rand(2, 2, 1, 3, 64, 64), torch.zeros(2, 2, STATE_DIM)).square().sum().backward()
    still = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still


def test_features_of_frames_cameras_and_state_lie_side_by_side() -> None:
    """(B, T_o * (V * feature_dim + STATE_DIM)): frame after frame; in each, camera after camera, then the state."""
    encoder = ObservationEncoder(encoder_config(proprioception=True), T_o=2).eval()
    images, state = torch.rand(3, 2, 2, 3, 64, 64), torch.randn(3, 2, STATE_DIM)
    with torch.no_grad():
        features = encoder(images, state)
        assert features.shape == (3, encoder.out_dim) == (3, 2 * (2 * 8 + STATE_DIM))
        by_frame = features.unflatten(1, (2, 2 * 8 + STATE_DIM))
        for t in range(2):
            for view in range(2):
                alone = encoder.cameras[view](images[:, t, view])
                torch.testing.assert_close(by_frame[:, t, 8 * view : 8 * view + 8], alone, rtol=0, atol=1e-5)
            torch.testing.assert_close(by_frame[:, t, 16:], state[:, t])


def test_shared_weights_are_one_network_for_all_cameras() -> None:
    shared = ObservationEncoder(encoder_config(share_weights=True), T_o=1).eval()
    apart = ObservationEncoder(encoder_config(share_weights=False), T_o=1).eval()
    assert len(list(apart.parameters())) == 2 * len(list(shared.parameters()))
    picture = torch.rand(1, 1, 1, 3, 64, 64).expand(1, 1, 2, 3, 64, 64)
    with torch.no_grad():
        left, right = shared(picture, torch.zeros(1, 1, STATE_DIM)).chunk(2, dim=1)
    torch.testing.assert_close(left, right)


def test_encoder_has_no_batch_norm() -> None:
    encoder = ObservationEncoder(encoder_config(), T_o=1)
    norms = [type(m) for m in encoder.modules() if "Norm" in type(m).__name__]
    assert norms
    assert set(norms) == {nn.GroupNorm}
