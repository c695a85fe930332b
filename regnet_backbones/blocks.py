"""Layers of a RegNet. Module names are pycls' (``f.a``, ``f.a_bn``, ``f.se.f_ex``), so its checkpoints fit.

Shapes: N images, C channels, H x W pixels. Every block maps (N, w_in, H, W) to (N, w_out, H/stride, W/stride).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU}


def conv2d(w_in: int, w_out: int, kernel: int, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias whose output has the input's size over ``stride``, rounded up."""
    padding = dilation * (kernel - 1) // 2
    return nn.Conv2d(w_in, w_out, kernel, stride, padding, dilation, groups, bias=False)


class SqueezeExcitation(nn.Module):
    """Global pool, 1x1 with bias, activation, 1x1 with bias, sigmoid; scales the channels of its input."""

    def __init__(self, channels: int, squeeze: int, activation: str) -> None:
        super().__init__()
        self.f_ex = nn.Sequential(
            nn.Conv2d(channels, squeeze, 1),
            ACTIVATIONS[activation](),
            nn.Conv2d(squeeze, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.f_ex(x.mean((2, 3), keepdim=True))


class StochasticDepth(nn.Module):
    """Drops the whole residual branch of a random share ``rate`` of the images while training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = torch.empty((x.shape[0], 1, 1, 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
        return x * (mask / keep)


class Transform(nn.Module):
    """1x1, norm, act, 3x3 in groups, norm, act [, SE], 1x1, norm."""

    def __init__(
        self, w_in: int, w_out: int, w_b: int, group_width: int, w_se: int,
        *, stride: int, dilation: int, activation: str, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        self.a, self.a_bn = conv2d(w_in, w_b, 1), norm(w_b)
        self.b, self.b_bn = conv2d(w_b, w_b, 3, stride, dilation, w_b // group_width), norm(w_b)
        self.se = SqueezeExcitation(w_b, w_se, activation) if w_se else None
        self.c, self.c_bn = conv2d(w_b, w_out, 1), norm(w_out)
        self.act = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.a_bn(self.a(x)))
        x = self.act(self.b_bn(self.b(x)))
        if self.se is not None:
            x = self.se(x)
        return self.c_bn(self.c(x))


class Block(nn.Module):
    """X and Y: act(shortcut + transform), the shortcut a 1x1 with norm where the shape changes."""

    def __init__(
        self, w_in: int, w_out: int, w_b: int, group_width: int, w_se: int,
        *, stride: int, dilation: int, projects: bool, drop_path: float, activation: str, norm: Norm,
    ) -> None:  # fmt: skip
        super().__init__()
        # Whether there is a projection is the architecture's, not the stride's here: a dilated stage keeps it.
        self.proj = conv2d(w_in, w_out, 1, stride) if projects else None
        self.bn = norm(w_out) if projects else None
        self.f = Transform(
            w_in,
            w_out,
            w_b,
            group_width,
            w_se,
            stride=stride,
            dilation=dilation,
            activation=activation,
            norm=norm,
        )
        self.drop_path = StochasticDepth(drop_path)
        self.act = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.proj is None else self.bn(self.proj(x))
        return self.act(shortcut + self.drop_path(self.f(x)))


class LinearBlock(Block):
    """Z: transform, plus the input where the shape stays; no activation at the end, no projection."""

    def __init__(self, *widths: int, projects: bool, **options) -> None:
        super().__init__(*widths, projects=False, **options)
        self.has_skip = not projects

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.f(x)) if self.has_skip else self.f(x)


BLOCKS: dict[str, type[nn.Module]] = {"bottleneck": Block, "linear": LinearBlock}
