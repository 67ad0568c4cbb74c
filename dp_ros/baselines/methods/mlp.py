"""Network of the baselines: a residual MLP with as many weights as the U-Net."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH_STEP = 8


class ResidualMLP(nn.Module):
    """Sum of linear maps of the inputs, residual blocks (He et al. 2016, pre-activation), linear output.

    No normalisation layers, because an energy must be able to become steep. ReLU, as in Florence et al.
    """

    def __init__(self, in_dims: tuple[int, ...], out_dim: int, width: int, blocks: int) -> None:
        super().__init__()
        self.enter = nn.ModuleList([nn.Linear(dim, width) for dim in in_dims])
        self.blocks = nn.ModuleList(
            [
                nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
                for _ in range(blocks)
            ]
        )
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(width, out_dim))

    def forward(self, *inputs: Tensor) -> Tensor:
        """inputs (..., in_dims[i]), shapes that broadcast -> (..., out_dim)."""
        x = self.enter[0](inputs[0])
        for linear, more in zip(list(self.enter)[1:], inputs[1:], strict=True):
            x = x + linear(more)
        for block in self.blocks:
            x = x + block(x)
        return self.out(x)


def count_parameters(module: nn.Module) -> int:
    """Number of weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def matched_mlp(in_dims: tuple[int, ...], out_dim: int, blocks: int, parameters: int) -> ResidualMLP:
    """MLP whose number of weights is nearest to `parameters`; its width is a multiple of WIDTH_STEP."""

    def weights(width: int) -> int:
        with torch.device("meta"):
            return count_parameters(ResidualMLP(in_dims, out_dim, width, blocks))

    width = WIDTH_STEP
    while weights(width + WIDTH_STEP) < parameters:
        width += WIDTH_STEP
    nearest = min((width, width + WIDTH_STEP), key=lambda w: abs(weights(w) - parameters))
    return ResidualMLP(in_dims, out_dim, nearest, blocks)
