"""The trunk under MMEngine's conventions: (N, C, H, W) in, a tuple of features out."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence

from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor

from ...arch import Arch, get_arch
from ...errors import UserError
from ...trunk import RegNet
from ...weights.meta import Meta
from .norms import norm_from
from .weights import is_pretrained, read_weights


# `RegNet` is taken by MMDetection and MMPretrain, whose own registries are searched before the root.
@MODELS.register_module()
class RegNetBackbone(RegNet, BaseModule):
    """Any RegNet as a backbone; its parameters are called ``backbone.s1.b1.f.a.weight`` inside a detector.

    Args:
        arch: a name in any spelling, or the parameters as a mapping (MMDetection's ``w0``, ``wa``, ``wm``,
            ``group_w``, ``depth``, ``bot_mul`` or the paper's names) or as text.
        out_indices: stages to return, 0 for s1 (stride 4) to 3 for s4 (stride 32); all of them when None.
        frozen_stages: -1 freezes nothing, 0 the stem, 1 the stem and s1, and so on.
        norm_cfg: ``type`` BN, SyncBN, FrozenBN, GN, LN or any norm registered in MMCV, with ``requires_grad``,
            ``eps`` and the type's own options.
        norm_eval: batch norms stay in eval mode while training. True by default as in MMDetection's RegNet, where
            MMSegmentation's networks have False; the configs of this project always say which.
        with_cp: recompute activations in the backward pass instead of keeping them.
        output_stride: 8 or 16 replaces the strides beyond it by dilation.
        drop_path_rate: stochastic depth of the last block.
        in_channels: channels of the image.
        allow_partial: accept weights that do not fill the backbone or have keys without a place in it.
        check_pixels: stop when the weights expect another channel order or other statistics than
            ``data_preprocessor`` feeds; False only warns.
        init_cfg: MMEngine's; ``dict(type="Pretrained", checkpoint=..., prefix=...)`` must fit exactly. An empty
            ``checkpoint`` means none.

    Raises:
        UserError: an option that is not possible for this architecture.
    """

    def __init__(
        self,
        arch: str | Mapping | Sequence[str] | Arch,
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        norm_cfg: Mapping | None = None,
        norm_eval: bool = True,
        with_cp: bool = False,
        output_stride: int | None = None,
        drop_path_rate: float = 0.0,
        in_channels: int = 3,
        allow_partial: bool = False,
        check_pixels: bool = True,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        network = _arch(arch)
        super().__init__(
            network,
            out_features=_features(network, out_indices),
            output_stride=output_stride,
            freeze_at=_freeze_at(network, frozen_stages),
            norm=norm_from(norm_cfg or {"type": "BN"}),
            norm_eval=norm_eval,
            drop_path=drop_path_rate,
            checkpointing=with_cp,
            in_channels=in_channels,
            allow_partial=allow_partial,
        )
        self.init_cfg = copy.deepcopy(init_cfg)
        self.check_pixels = check_pixels
        self.weights_meta: Meta | None = None  # what the file of the pretrained weights says of itself

    @classmethod
    def channels_of(
        cls, arch: str | Mapping | Sequence[str] | Arch, out_indices: Sequence[int] | None = None, **_
    ) -> list[int]:
        """Channels of each feature that a backbone built with these arguments returns."""
        network = _arch(arch)
        return [network.channels[name] for name in _features(network, out_indices)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Features of ``x`` (N, in_channels, H, W) from fine to coarse, one per entry of ``out_indices``."""
        return tuple(super().forward(x).values())

    def init_weights(self) -> None:
        """MMEngine's initializers, then the pretrained weights, which must fit: it would only warn."""
        if self.is_init:
            return super().init_weights()
        configs = [self.init_cfg] if isinstance(self.init_cfg, Mapping) else list(self.init_cfg or [])
        pretrained = [config for config in configs if is_pretrained(config)]
        given, self.init_cfg = self.init_cfg, [config for config in configs if not is_pretrained(config)]
        super().init_weights()
        self.init_cfg = given
        loaded = [config for config in pretrained if config.get("checkpoint")]
        for config in loaded:
            weights, self.weights_meta = read_weights(config["checkpoint"], self.arch, config.get("prefix"))
            self.load_state_dict(weights, strict=not self.allow_partial)
        if self.freeze_at and not loaded:
            print_log(
                f"the stem of {self.arch.name} is frozen at random values unless a checkpoint of the whole model"
                " follows: set model.backbone.init_cfg.checkpoint, or frozen_stages=-1 to train from scratch",
                logger="current",
                level=logging.WARNING,
            )


def _arch(arch: str | Mapping | Sequence[str] | Arch) -> Arch:
    # --cfg-options splits "depth=13,w_0=24,..." at its commas
    return get_arch(",".join(arch) if isinstance(arch, (list, tuple)) else arch)


def _features(arch: Arch, out_indices: Sequence[int] | None) -> list[str]:
    stages = list(arch.channels)[1:]
    if out_indices is None:
        return stages
    indices = [out_indices] if isinstance(out_indices, int) else list(out_indices)
    if not indices or any(not isinstance(i, int) or not 0 <= i < len(stages) for i in indices):
        raise UserError(
            f"out_indices={tuple(indices)} is not possible: {arch.name} has the stages 0 to {len(stages) - 1}"
            f" ({stages[0]} to {stages[-1]})"
        )
    return [stages[i] for i in sorted(set(indices))]


def _freeze_at(arch: Arch, frozen_stages: int) -> int:
    stages = len(arch.stages)
    if not -1 <= frozen_stages <= stages:
        raise UserError(
            f"frozen_stages={frozen_stages} is not possible for {arch.name}: give -1 for none, 0 for the stem,"
            f" up to {stages} for the stem and all stages"
        )
    return frozen_stages + 1
