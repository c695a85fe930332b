"""Params, multiply-adds and activations in closed form, without building the network.

Counted as pycls counts them: a fused multiply-add is one, biases of convolutions and of the classifier add one
per output, normalization and activation functions are free, and "activations" are the elements that
convolutions and the classifier put out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .arch import Arch
from .errors import UserError


@dataclass
class Complexity:
    """Totals: ``params``, ``flops`` (multiply-adds) and ``acts``, and the size where the count now stands."""

    height: int
    width: int
    params: int = 0
    flops: int = 0
    acts: int = 0
    by_feature: dict[str, dict[str, int]] = field(default_factory=dict)

    def conv(self, w_in: int, w_out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False) -> None:
        """A convolution with padding that keeps the size up to its stride."""
        self.height, self.width = (self.height - 1) // stride + 1, (self.width - 1) // stride + 1
        weights = kernel * kernel * w_in * w_out // groups + (w_out if bias else 0)
        self.params += weights
        self.flops += weights * self.height * self.width
        self.acts += w_out * self.height * self.width

    def norm(self, channels: int) -> None:
        self.params += 2 * channels

    def at(self, height: int, width: int) -> None:
        self.height, self.width = height, width


def complexity(
    arch: Arch, size: tuple[int, int] = (224, 224), *, num_classes: int | None = 1000, in_channels: int = 3
) -> Complexity:
    """Complexity of ``arch`` on one image of ``size`` (height, width) pixels.

    Args:
        num_classes: classes of the linear classifier behind the global pool; None counts the trunk alone.

    Returns:
        The totals; ``by_feature`` holds the running totals after ``stem``, ``s1``, ... and their sizes.

    Raises:
        UserError: a size below 1 pixel.
    """
    if min(size) < 1:
        raise UserError(f"an image of {size[0]}x{size[1]} pixels is empty; give a height and a width of at least 1")
    total = Complexity(*size)
    total.conv(in_channels, arch.stem_width, 3, 2)
    total.norm(arch.stem_width)
    _mark(total, "stem")
    w_in = arch.stem_width
    for i, stage in enumerate(arch.stages, 1):
        for j in range(stage.depth):
            _block(
                total,
                arch,
                w_in,
                stage.width,
                stage.bottleneck_width,
                stage.group_width,
                stage.stride if j == 0 else 1,
            )
            w_in = stage.width
        _mark(total, f"s{i}")
    if num_classes is not None:
        total.at(1, 1)
        total.conv(w_in, num_classes, 1, bias=True)
    return total


def _block(total: Complexity, arch: Arch, w_in: int, w_out: int, w_b: int, group_width: int, stride: int) -> None:
    before = total.height, total.width
    if arch.block == "bottleneck" and (stride != 1 or w_in != w_out):
        total.conv(w_in, w_out, 1, stride)
        total.norm(w_out)
        total.at(*before)
    total.conv(w_in, w_b, 1)
    total.norm(w_b)
    total.conv(w_b, w_b, 3, stride, groups=w_b // group_width)
    total.norm(w_b)
    if w_se := arch.squeeze_width(w_in):
        after = total.height, total.width
        total.at(1, 1)
        total.conv(w_b, w_se, 1, bias=True)
        total.conv(w_se, w_b, 1, bias=True)
        total.at(*after)
    total.conv(w_b, w_out, 1)
    total.norm(w_out)


def _mark(total: Complexity, feature: str) -> None:
    keys = ("height", "width", "params", "flops", "acts")
    total.by_feature[feature] = {key: getattr(total, key) for key in keys}
