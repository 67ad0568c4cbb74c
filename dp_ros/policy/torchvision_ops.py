"""Import of torchvision where its compiled operators were built for another torch.

On import, torchvision registers fake kernels for `nms` and `qnms`, and fails if these operators are not declared.
dp_ros uses no detection operators, so declaring their signatures is enough.
"""

from __future__ import annotations

from types import ModuleType

import torch

_SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []  # a Library undoes its definitions when collected


def import_torchvision_models() -> ModuleType:
    """Import `torchvision.models`, after declaring the operator signatures that are missing."""
    try:
        import torchvision.models as models
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name, signature in _SIGNATURES.items():
            library.define(name + signature)
        _libraries.append(library)
        import torchvision.models as models
    return models
