"""Encoder of images to one feature vector per frame (Chi et al. 2023, section 3.2).

ResNet-18 trained from scratch, with GroupNorm instead of BatchNorm, whose running statistics do not fit averaged
weights (EMA), and with spatial softmax instead of global pooling, so that features carry positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dp_ros.actions import STATE_DIM
from dp_ros.policy.torchvision_ops import import_torchvision_models
from dp_ros.schema import EncoderConfig

Pictures = Tensor | Sequence[Tensor]  # of V cameras: (..., V, 3, H, W), or V of (..., 3, H, W)


class SpatialSoftmax(nn.Module):
    """Expected image coordinates of each channel's activation (Levine et al. 2016, section 5.2)."""

    def __init__(self, in_channels: int, keypoints: int) -> None:
        super().__init__()
        self.to_keypoints = nn.Conv2d(in_channels, keypoints, kernel_size=1)
        self.temperature = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, 2 * keypoints), coordinates in [-1, 1]: all x, then all y."""
        logits = self.to_keypoints(x).float()
        height, width = logits.shape[-2:]
        attention = torch.softmax(logits.flatten(2) / self.temperature, dim=-1).unflatten(2, (height, width))
        across = torch.linspace(-1.0, 1.0, width, device=x.device)
        down = torch.linspace(-1.0, 1.0, height, device=x.device)
        return torch.cat([attention.sum(2) @ across, attention.sum(3) @ down], dim=-1)


class ResNetEncoder(nn.Module):
    """Encoder of one camera: a picture to a feature vector."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        resnet = import_torchvision_models().resnet18(
            weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels)
        )
        stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4][: config.stages]
        self.backbone = nn.Sequential(resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool, *stages)
        self.pool = SpatialSoftmax(64 * 2 ** (config.stages - 1), config.keypoints)
        self.project = nn.Linear(2 * config.keypoints, config.feature_dim)
        # The layout of camera frames, and the fast one on CPU. torch's stubs lack this signature of `to`.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """images (N, 3, H, W) in [0, 1] -> (N, feature_dim)."""
        return torch.relu(self.project(self.pool(self.backbone(images * 2.0 - 1.0))))


class ObservationEncoder(nn.Module):
    """Encoder of a window: all cameras, and the measured state if `proprioception` is on, to one vector."""

    def __init__(self, config: EncoderConfig, T_o: int) -> None:
        super().__init__()
        self.config = config
        count = 1 if config.share_weights else len(config.cameras)
        self.cameras = nn.ModuleList([ResNetEncoder(config) for _ in range(count)])
        frame_dim = len(config.cameras) * config.feature_dim
        if config.proprioception:
            frame_dim += STATE_DIM
        self.out_dim = T_o * frame_dim

    def forward(self, images: Pictures, state: Tensor, frames: Tensor | None = None) -> Tensor:
        """images: V of (B, T_o, 3, H, W) in [0, 1], cropped, in the config's order of cameras, each of its own size;
        or, where all have one size, (B, T_o, V, 3, H, W). state (B, T_o, STATE_DIM) normalised, ignored unless
        `proprioception` is on -> (B, out_dim).

        With `frames` (B, T_o), images are V of (F, 3, H, W) and each is encoded once: `frames` holds the indices, in
        F, of each window's frames. Windows that overlap then share the work.
        """
        batch, T_o = state.shape[:2]
        features = []
        for view, pictures in enumerate(images.unbind(-4) if isinstance(images, Tensor) else images):
            separate = pictures.flatten(0, 1) if frames is None else pictures
            encoded = self.encode_camera(view, separate)
            if frames is not None:
                encoded = encoded.index_select(0, frames.flatten())
            features.append(encoded.unflatten(0, (batch, T_o)))
        return self.join(features, state)

    def encode_camera(self, view: int, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) of the camera number `view` -> (N, feature_dim)."""
        encoded: Tensor = self.cameras[view % len(self.cameras)](pictures)
        return encoded

    def join(self, features: Sequence[Tensor], state: Tensor) -> Tensor:
        """features V of (B, T_o, feature_dim), state (B, T_o, STATE_DIM) normalised -> (B, out_dim)."""
        parts = [*features, state.to(features[0].dtype)] if self.config.proprioception else features
        return torch.cat(list(parts), dim=-1).flatten(1)
