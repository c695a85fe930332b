"""The network: an image (N, C, H, W) in, a dict of features ``stem``, ``s1``, ... by stride out.

One module for every framework. Its parameter names are those of pycls and of Detectron2's own RegNet
(``stem.conv.weight``, ``s1.b1.f.a.weight``), and none of them depends on an option, so one checkpoint serves all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .arch import Arch, get_arch
from .blocks import ACTIVATIONS, BLOCKS, Norm, conv2d
from .design_space import STAGE_STRIDE, DesignPoint
from .errors import UserError
from .norms import BATCH_NORMS, get_norm
from .weights.strict import COUNTER, compare, left_out, logger, require_fit


class Stem(nn.Module):
    """3x3 of stride 2, norm, act."""

    def __init__(self, w_in: int, w_out: int, activation: str, norm: Norm) -> None:
        super().__init__()
        self.conv, self.bn = conv2d(w_in, w_out, 3, 2), norm(w_out)
        self.act = ACTIVATIONS[activation](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class RegNet(nn.Module):
    """The trunk of a RegNet, without a head.

    Args:
        arch: a name, parameters, a point of the space or an :class:`~regnet_backbones.arch.Arch`.
        out_features: which of ``stem``, ``s1``, ... to return; all stages when None. Stages behind the last one
            asked for are not built, so no parameter is left without a gradient.
        output_stride: 8, 16 or 32 replaces the strides beyond it by dilation; None keeps the architecture's.
            At the positions that the strided network computes, a dilated RegNetX computes the same values
            (squeeze-and-excitation averages over the denser grid).
        freeze_at: freezes this many of stem, s1, s2, ...: no gradients, and norms stay in eval mode.
        norm: ``BN``, ``FrozenBN``, ``SyncBN``, ``GN``, ``LN``, or a callable from channels to a module.
        norm_eval: keep batch norms in eval mode while training (their affine still learns).
        drop_path: rate of stochastic depth at the last block, growing linearly from 0 at the first.
        checkpointing: recompute the blocks' activations in the backward pass instead of keeping them.
        in_channels: channels of the image.
        allow_partial: accept a checkpoint that does not fill the trunk, or has keys that fit nowhere in it.

    Raises:
        UserError: an option that does not exist for this architecture; the sentence says which and what does.
    """

    def __init__(
        self,
        arch: str | Mapping | DesignPoint | Arch,
        *,
        out_features: Sequence[str] | None = None,
        output_stride: int | None = None,
        freeze_at: int = 0,
        norm: str | Norm = "BN",
        norm_eval: bool = False,
        drop_path: float = 0.0,
        checkpointing: bool = False,
        in_channels: int = 3,
        allow_partial: bool = False,
    ) -> None:
        super().__init__()
        self.arch = get_arch(arch)
        self.out_features = _check_out_features(self.arch, out_features)
        self.allow_partial = allow_partial
        self.freeze_at = _check_freeze_at(self.arch, freeze_at)
        self.norm_eval = norm_eval
        self.checkpointing = checkpointing
        if not 0.0 <= drop_path < 1.0:
            raise UserError(f"drop_path={drop_path} is not a rate; give a number from 0 up to, not including, 1")
        self.channels = self.arch.channels
        self.strides = {name: min(stride, output_stride or stride) for name, stride in self.arch.strides.items()}
        self._build(get_norm(norm), in_channels, drop_path, _dilations(self.arch, output_stride))
        self._initialize()
        self._freeze()

    def _build(self, norm: Norm, in_channels: int, drop_path: float, dilations: dict[str, tuple[int, int]]) -> None:
        arch = self.arch
        names = list(arch.channels)
        self.stem = Stem(in_channels, arch.stem_width, arch.activation, norm)
        w_in = arch.stem_width
        blocks_before, all_blocks = 0, sum(stage.depth for stage in arch.stages)
        last = max(names.index(name) for name in self.out_features)
        self.built = names[: last + 1]
        for name, stage in zip(self.built[1:], arch.stages, strict=False):
            first_dilation, dilation = dilations[name]
            blocks = nn.Sequential()
            for j in range(stage.depth):
                block = BLOCKS[arch.block](
                    w_in, stage.width, stage.bottleneck_width, stage.group_width, arch.squeeze_width(w_in),
                    stride=self.strides[name] // self.strides[names[names.index(name) - 1]] if j == 0 else 1,
                    dilation=first_dilation if j == 0 else dilation,
                    projects=(j == 0 and stage.stride != 1) or w_in != stage.width,
                    drop_path=drop_path * (blocks_before + j) / max(all_blocks - 1, 1),
                    activation=arch.activation, norm=norm,
                )  # fmt: skip
                blocks.add_module(f"b{j + 1}", block)
                w_in = stage.width
            blocks_before += stage.depth
            self.add_module(name, blocks)

    def _initialize(self) -> None:
        """He et al.'s normal initialization over the fan out, as pycls and Detectron2 do."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = math.prod(module.kernel_size) * module.out_channels
                nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def _freeze(self) -> None:
        for name in self._frozen():
            for parameter in getattr(self, name).parameters():
                parameter.requires_grad_(False)

    def _frozen(self) -> list[str]:
        return self.built[: self.freeze_at]

    def train(self, mode: bool = True) -> RegNet:
        """As ``nn.Module.train``, but frozen parts, and all batch norms under ``norm_eval``, stay in eval mode."""
        super().train(mode)
        for name in self._frozen():
            getattr(self, name).eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features of ``x`` (N, in_channels, H, W); ``s2`` has shape (N, channels["s2"], ceil(H/8), ceil(W/8)).

        Raises:
            UserError: an image smaller than the stride of the deepest feature.
        """
        deepest = self.strides[self.built[-1]]
        if min(x.shape[-2:]) < deepest:
            raise UserError(
                f"the image is {x.shape[-2]}x{x.shape[-1]} pixels, too small for the feature '{self.built[-1]}' of"
                f" stride {deepest}; give at least {deepest}x{deepest}"
            )
        features = {}
        for name in self.built:
            x = self._run(getattr(self, name), x)
            if name in self.out_features:
                features[name] = x
        return features

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if not (self.checkpointing and torch.is_grad_enabled()) or isinstance(stage, Stem):
            return stage(x)
        for block in stage:
            contexts = partial(_recompute_contexts, block)
            x = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
        return x

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Called by every ``load_state_dict`` that reaches this module: refuse what does not fill it."""
        ours = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {
            name[len(prefix) :]: getattr(t, "shape", ()) for name, t in state_dict.items() if name.startswith(prefix)
        }
        without_place = {"head", *self.arch.channels} - {name for name, _ in self.named_children()}
        unused = left_out(given, without_place)
        if unused:
            logger.info("%s has no %s: %d tensors of the checkpoint are left out", self.arch.name,
                        ", ".join(sorted(without_place)), len(unused))  # fmt: skip
        fit = compare(ours, {name: shape for name, shape in given.items() if name not in unused})
        require_fit(fit, self.arch.name, allow_partial=self.allow_partial)
        for name in (*unused, *fit.misplaced, *fit.reshaped):
            del state_dict[prefix + name]
        for name in ours:
            if name.endswith(COUNTER):
                state_dict.setdefault(prefix + name, torch.zeros((), dtype=torch.long))
        super()._load_from_state_dict(state_dict, prefix, *args)


class RegNetClassifier(RegNet):
    """The trunk, global pool and a linear layer ``head.fc``: pycls' ImageNet network, for pretraining."""

    def __init__(self, arch: str | Mapping | DesignPoint | Arch, num_classes: int = 1000, **options) -> None:
        super().__init__(arch, **options)
        self.head = nn.Module()
        self.head.fc = nn.Linear(self.channels[self.built[-1]], num_classes)
        nn.init.normal_(self.head.fc.weight, std=0.01)
        nn.init.zeros_(self.head.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, num_classes) of images ``x`` (N, in_channels, H, W)."""
        return self.head.fc(super().forward(x)[self.built[-1]].mean((2, 3)))


def _recompute_contexts(block: nn.Module) -> tuple:
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Recomputing a block must not count its batch into the running statistics a second time."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter


def _check_out_features(arch: Arch, out_features: Sequence[str] | None) -> tuple[str, ...]:
    names = list(arch.channels)
    if out_features is None:
        return tuple(names[1:])
    unknown = [name for name in out_features if name not in names]
    if unknown or not out_features:
        asked = ", ".join(f"'{name}'" for name in unknown) or "an empty list"
        raise UserError(f"{arch.name} has no feature {asked}; its features are {', '.join(names)}")
    return tuple(name for name in names if name in out_features)


def _check_freeze_at(arch: Arch, freeze_at: int) -> int:
    if not 0 <= freeze_at <= len(arch.channels):
        raise UserError(
            f"freeze_at={freeze_at} is not possible: {arch.name} has {len(arch.channels)} parts to freeze"
            f" ({', '.join(arch.channels)}); give 0 for none up to {len(arch.channels)} for all"
        )
    return freeze_at


def _dilations(arch: Arch, output_stride: int | None) -> dict[str, tuple[int, int]]:
    """Per stage the dilation of its first block's 3x3 and of the others'.

    A stage that loses its stride leaves its first 3x3 on the old grid; only what comes after sees a grid twice
    as dense as it was trained on. This is what keeps the values of the strided network.
    """
    if output_stride not in (None, 8, 16, 32):
        raise UserError(f"output_stride={output_stride} is not possible; choose 8, 16 or 32, or None for no dilation")
    dilations, dilation = {}, 1
    for name, stride in list(arch.strides.items())[1:]:
        first = dilation
        if stride > (output_stride or stride):
            dilation *= STAGE_STRIDE
        dilations[name] = (first, dilation)
    return dilations


def build(arch: str | Mapping | DesignPoint | Arch, **options) -> RegNet:
    """A :class:`RegNet`; see there for the options."""
    return RegNet(arch, **options)
