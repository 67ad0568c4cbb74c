"""The first stages of a ResNet-18 (He et al. 2016) of any width, with GroupNorm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_CHANNELS_PER_GROUP = 16


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip connection (He et al. 2016, figure 5 left)."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        """stride: of the first convolution, and of the skip, a 1x1 convolution. With 1, nothing is on the skip, and
        in_channels is channels."""
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = _norm(channels)  # checkpoints have the names of torchvision's ResNet
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = _norm(channels)
        self.downsample: nn.Sequential | None = None
        if stride != 1:
            skip = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, _norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, in_channels, H, W) -> (N, channels, ceil(H / stride), ceil(W / stride))."""
        skip = x if self.downsample is None else self.downsample(x)
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += skip
        return torch.relu_(x)


def resnet18(width: int, stages: int) -> nn.Sequential:
    """The stem and the first stages: pictures (N, 3, H, W) -> (N, width * 2 ** (stages - 1), h, w).

    Height and width are halved `stages` + 1 times, rounded up. The last modules are the stages, of two blocks each.
    width: channels of the stem and of the first stage, 64 in the paper; a multiple of 16. Convolutions are
    initialised for ReLU (He et al. 2015).
    """
    layers = [nn.Sequential(BasicBlock(width, width), BasicBlock(width, width))]
    for i in range(1, stages):
        wide = width * 2**i
        layers.append(nn.Sequential(BasicBlock(wide // 2, wide, stride=2), BasicBlock(wide, wide)))
    stem = [nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), _norm(width), nn.ReLU(inplace=True)]
    resnet = nn.Sequential(*stem, nn.MaxPool2d(3, stride=2, padding=1), *layers)
    for module in resnet.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return resnet


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // _CHANNELS_PER_GROUP, channels)
