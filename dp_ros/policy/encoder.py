"""Encoder of images to one feature vector per frame (Chi et al. 2023, section 3.2).

ResNet-18 trained from scratch, with GroupNorm instead of BatchNorm, whose running statistics do not fit averaged
weights (EMA), and with spatial softmax instead of global pooling, so that features carry positions.

An instruction scales and shifts the channels after each stage (FiLM, Perez et al. 2018), and is appended to the
features of each frame, which condition every block of the denoising network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dp_ros.actions import STATE_DIM
from dp_ros.policy.resnet import resnet18
from dp_ros.schema import EncoderConfig, InstructionConfig, InstructionError

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
    """Encoder of one camera: a picture, and what is learned from the instruction if any, to a feature vector."""

    def __init__(self, config: EncoderConfig, instruction_features: int = 0) -> None:
        """instruction_features: 0 without an instruction."""
        super().__init__()
        self.backbone = resnet18(config.width, config.stages)
        widths = [config.width * 2**i for i in range(config.stages)]
        self.pool = SpatialSoftmax(widths[-1], config.keypoints)
        self.project = nn.Linear(2 * config.keypoints, config.feature_dim)
        self.film = nn.Linear(instruction_features, 2 * sum(widths)) if instruction_features else None
        if self.film is not None:  # a training begins without an effect of the instruction
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)
        self._film_sizes = [2 * width for width in widths]
        # The layout of camera frames, and the fast one on CPU. torch's stubs lack this signature of `to`.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, instruction: Tensor | None = None) -> Tensor:
        """images (N, 3, H, W) in [0, 1], instruction (N, F) -> (N, feature_dim)."""
        return self.describe(images, instruction)[0]

    def describe(self, images: Tensor, instruction: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, and the keypoints that the features are made of: (N, feature_dim), (N, 2 * keypoints)."""
        x = images * 2.0 - 1.0
        if self.film is None:
            x = self.backbone(x)
        else:
            assert instruction is not None
            stem = len(self.backbone) - len(self._film_sizes)
            x = self.backbone[:stem](x)
            films = self.film(instruction)[..., None, None].split(self._film_sizes, dim=1)
            for i, film in enumerate(films):
                scale, shift = film.chunk(2, dim=1)
                x = self.backbone[stem + i](x) * (1.0 + scale) + shift
        keypoints = self.pool(x)
        return torch.relu(self.project(keypoints)), keypoints


class InstructionEncoder(nn.Sequential):
    """Embedding of a sentence, a unit vector (B, embedding_dim) -> what is learned from it (B, features)."""

    def __init__(self, config: InstructionConfig) -> None:
        super().__init__(
            nn.Linear(config.embedding_dim, config.features),
            nn.ReLU(),  # OpenVINO fails to compile other functions in a graph of this size
            nn.Linear(config.features, config.features),
        )
        self._scale = (
            config.embedding_dim**0.5
        )  # a unit vector's numbers are small; as large as those of noise

    def forward(self, embedding: Tensor) -> Tensor:
        x = embedding * self._scale
        for layer in self:
            x = layer(x)
        return x


class ObservationEncoder(nn.Module):
    """Encoder of a window to one vector: all cameras, the measured state if `proprioception` is on, and the
    instruction if the policy has one."""

    def __init__(self, config: EncoderConfig, T_o: int, instruction: InstructionConfig | None = None) -> None:
        super().__init__()
        self.config = config
        count = 1 if config.share_weights else len(config.cameras)
        features = instruction.features if instruction else 0
        self.cameras = nn.ModuleList([ResNetEncoder(config, features) for _ in range(count)])
        self.instruction = InstructionEncoder(instruction) if instruction else None
        frame_dim = len(config.cameras) * config.feature_dim + features
        if config.proprioception:
            frame_dim += STATE_DIM
        self.out_dim = T_o * frame_dim

    def forward(
        self,
        images: Pictures,
        state: Tensor,
        frames: Tensor | None = None,
        instruction: Tensor | None = None,
    ) -> Tensor:
        """images: V of (B, T_o, 3, H, W) in [0, 1], cropped, in the config's order of cameras, each of its own size;
        or, where all have one size, (B, T_o, V, 3, H, W). state (B, T_o, STATE_DIM) normalised, ignored unless
        `proprioception` is on. instruction (B, embedding_dim), where the policy has one -> (B, out_dim).

        With `frames` (B, T_o), images are V of (F, 3, H, W) and each is encoded once: `frames` holds the indices, in
        F, of each window's frames. Windows that overlap then share the work, and have one instruction.
        """
        batch, T_o = state.shape[:2]
        told = self.tell(instruction)
        features = []
        for view, pictures in enumerate(images.unbind(-4) if isinstance(images, Tensor) else images):
            separate = pictures.flatten(0, 1) if frames is None else pictures
            encoded = self.encode_camera(
                view, separate, None if told is None else _of_pictures(told, len(separate), T_o, frames)
            )
            if frames is not None:
                encoded = encoded.index_select(0, frames.flatten())
            features.append(encoded.unflatten(0, (batch, T_o)))
        return self.join(features, state, told)

    def tell(self, instruction: Tensor | None) -> Tensor | None:
        """Learned features of the instruction, (B, F); None where the policy has none. InstructionError where it is
        missing."""
        if self.instruction is None:
            return None
        if instruction is None:
            raise InstructionError("no instruction: this policy is told by a sentence what to do")
        told: Tensor = self.instruction(instruction)
        return told

    def encode_camera(self, view: int, pictures: Tensor, told: Tensor | None = None) -> Tensor:
        """Pictures (N, 3, H, W) of the camera number `view`, told (N, F) of `tell` -> (N, feature_dim)."""
        encoded: Tensor = self.cameras[view % len(self.cameras)](pictures, told)
        return encoded

    def describe_camera(
        self, view: int, pictures: Tensor, told: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `encode_camera`, and the keypoints, (N, 2 * keypoints)."""
        camera = self.cameras[view % len(self.cameras)]
        assert isinstance(camera, ResNetEncoder)
        return camera.describe(pictures, told)

    def join(self, features: Sequence[Tensor], state: Tensor, told: Tensor | None = None) -> Tensor:
        """features V of (B, T_o, feature_dim), state (B, T_o, STATE_DIM) normalised, told (B, F) -> (B, out_dim)."""
        parts = [*features, state.to(features[0].dtype)] if self.config.proprioception else [*features]
        if told is not None:
            parts.append(told.to(features[0].dtype)[:, None].expand(-1, state.shape[1], -1))
        return torch.cat(parts, dim=-1).flatten(1)


def _of_pictures(told: Tensor, count: int, T_o: int, frames: Tensor | None) -> Tensor:
    """told (B, F) of the windows -> (count, F) of the pictures."""
    of_frames = told.repeat_interleave(T_o, dim=0)
    if frames is None:
        return of_frames
    window = torch.zeros(count, dtype=torch.long, device=told.device)
    window[frames.flatten()] = torch.arange(
        len(of_frames), device=told.device
    )  # any window that has the picture
    return of_frames.index_select(0, window)
