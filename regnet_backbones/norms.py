"""Normalization layers by the names that the frameworks' users write: BN, FrozenBN, SyncBN, GN, LN."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Norm
from .errors import UserError

EPS = 1e-5  # of every published RegNet


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose affine and statistics are buffers: a fixed scale and shift per channel."""

    def __init__(self, channels: int, eps: float = EPS) -> None:
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Of what it multiplies, autograd keeps only the scale, so no activation is held for the backward pass.
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.to(x.dtype)[:, None, None] + shift.to(x.dtype)[:, None, None]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        state_dict.pop(prefix + "num_batches_tracked", None)  # a trained BN's counter has no use here
        super()._load_from_state_dict(state_dict, prefix, *args)


class SyncBatchNorm(nn.SyncBatchNorm):
    """PyTorch's, with one sentence instead of its ValueError where it cannot run."""

    def forward(self, x: Tensor) -> Tensor:
        several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
        if self.training and several and x.device.type == "cpu":
            raise UserError(
                "SyncBN does not run on several CPU processes (PyTorch has it for GPUs only);"
                " set the norm to FrozenBN, BN, GN or LN"
            )
        return super().forward(x)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of every pixel of (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


def _group_norm(channels: int) -> nn.GroupNorm:
    # 32 groups, the usual number, divide few RegNet widths: take the largest number up to it that does.
    groups = max(g for g in range(1, 33) if channels % g == 0)
    return nn.GroupNorm(groups, channels, eps=EPS)


NORMS: dict[str, Norm] = {
    "BN": lambda channels: nn.BatchNorm2d(channels, eps=EPS),
    "FrozenBN": FrozenBatchNorm2d,
    "SyncBN": lambda channels: SyncBatchNorm(channels, eps=EPS),
    "GN": _group_norm,
    "LN": lambda channels: LayerNorm2d(channels, eps=EPS),
}
BATCH_NORMS = (nn.modules.batchnorm._BatchNorm, FrozenBatchNorm2d)


def get_norm(norm: str | Norm) -> Norm:
    """The layer for a name in :data:`NORMS`; a callable from channels to module is taken as it is."""
    if callable(norm):
        return norm
    if norm not in NORMS:
        raise UserError(f"there is no norm called '{norm}'; choose one of {', '.join(NORMS)}")
    return NORMS[norm]
