"""Data-parallel training on CPUs: MMEngine's own wrapper passes ``device_ids``, which PyTorch refuses there."""

from __future__ import annotations

from typing import Any

from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from ...errors import UserError


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """``model_wrapper_cfg = dict(type="CPUDistributedDataParallel")``, for a process group with gloo.

    Raises:
        UserError: the model has SyncBN, which PyTorch has for GPUs only.
    """

    def __init__(self, module: nn.Module, device_ids: list[int] | None = None, **options: Any) -> None:
        synced = [name for name, layer in module.named_modules() if isinstance(layer, nn.SyncBatchNorm)]
        if synced:
            parts = sorted({f"model.{name.split('.')[0]}.norm_cfg.type" for name in synced})
            raise UserError(
                f"SyncBN does not run on several CPU processes (PyTorch has it for GPUs only); set {', '.join(parts)}"
                " to BN, GN or LN, or start a single process"
            )
        super().__init__(module, **options)
