"""The pixels that weights expect against those that ``data_preprocessor`` feeds, in every run of MMEngine's Runner."""

from __future__ import annotations

import functools
from typing import Any

from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn

from ...trunk import RegNet
from ...weights.detectors.settings import check_settings
from ...weights.file import META_KEY
from ...weights.meta import Meta
from ...weights.pixels import check_pixels

SWITCH = "model.backbone.check_pixels=False"


@HOOKS.register_module()
class PixelsHook(Hook):
    """Compares what the backbone's weights, or a whole checkpoint, expect with what the config feeds.

    Saved checkpoints carry the pixels they were trained on, so that they can be compared later.
    """

    def before_train(self, runner: Runner) -> None:
        for trunk in _trunks(runner.model):
            if trunk.weights_meta is not None:
                _check(runner, trunk, trunk.weights_meta)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        stated = checkpoint.get(META_KEY)
        for trunk in _trunks(runner.model):
            trunk.weights_meta = None  # what was loaded before is overwritten
            if stated:
                _check(runner, trunk, Meta.from_dict(stated))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        fed = _fed(runner.model)
        if fed.channel_order:
            checkpoint[META_KEY] = fed.to_dict()


def _trunks(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, RegNet) and hasattr(module, "weights_meta")]


def _check(runner: Runner, trunk: Any, known: Meta) -> None:
    check_pixels(known, _fed(runner.model), remedy=_remedy, strict=trunk.check_pixels, switch=SWITCH)
    built = _neck_settings(runner.model)
    check_settings(known.settings, built, "mmdet", strict=trunk.check_pixels, switch=SWITCH)


def _fed(model: nn.Module) -> Meta:
    """What the model's data preprocessor makes of an image that MMCV read, which is BGR."""
    preprocessor = getattr(getattr(model, "module", model), "data_preprocessor", None)
    mean, std = getattr(preprocessor, "mean", None), getattr(preprocessor, "std", None)
    if mean is None or mean.numel() != 3:
        return Meta(format="mmdet")
    # MMEngine keeps one flag for both directions; images come as BGR, so what it can mean here is RGB.
    return Meta(
        format="mmdet",
        channel_order="RGB" if preprocessor._channel_conversion else "BGR",
        pixel_mean=tuple(mean.flatten().tolist()),
        pixel_std=tuple(std.flatten().tolist()),
        settings=_neck_settings(model),
    )


def _neck_settings(model: nn.Module) -> dict[str, bool]:
    """What tensors do not tell of a RetinaNet's FPN; nothing for other necks."""
    neck = getattr(getattr(model, "module", model), "neck", None)
    source = getattr(neck, "add_extra_convs", False)
    if source not in ("on_input", "on_output"):
        return {}
    return {"relu_before_p7": bool(neck.relu_before_extra_convs), "p6_from_p5": source == "on_output"}


def _remedy(known: Meta) -> str:
    mean, std, flips = list(known.pixel_mean), list(known.pixel_std), known.channel_order == "RGB"
    return f"set model.data_preprocessor to mean={mean}, std={std}, bgr_to_rgb={flips}"


def install() -> None:
    """Give every Runner the hook, whatever its config lists, so that a user's own config is checked too."""
    if hasattr(Runner.register_hooks, "__wrapped__"):
        return
    register = Runner.register_hooks

    @functools.wraps(register)
    def with_pixels(runner: Runner, *args: Any, **kwargs: Any) -> None:
        register(runner, *args, **kwargs)
        runner.register_hook(PixelsHook())

    Runner.register_hooks = with_pixels
