"""Makes `import torchvision` work where its compiled operators were built for another torch.

torchvision registers fake kernels for `nms` and `qnms` on import and fails when the operators were never
declared. Nothing here uses detection operators: declaring their signatures is enough.
"""

from __future__ import annotations

import torch

_SIGNATURES = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []  # a Library undoes its definitions when collected


def import_torchvision_models():  # type: ignore[no-untyped-def]
    """`torchvision.models`, with missing operator signatures declared first."""
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
