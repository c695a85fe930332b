"""From what ``init_cfg`` names to tensors under the trunk's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from ...arch import Arch
from ...errors import UserError
from ...weights import load_backbone
from ...weights.file import read

CONTAINERS = ("state_dict", "model", "model_state")  # of MMEngine, of Detectron2 and this project, of pycls
_STEM = "stem.conv.weight"


def is_pretrained(init_cfg: Mapping[str, Any]) -> bool:
    """Whether an initializer is MMEngine's loading from a file, by name or by class."""
    return init_cfg["type"] in ("Pretrained", PretrainedInit)


def read_weights(checkpoint: str, arch: Arch, prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by the trunk's names. Whether they fit is the trunk's to say.

    Args:
        checkpoint: a file in any format that the project reads, or an address or scheme that MMEngine knows
            (``https://``, ``open-mmlab://``) of one that has the trunk's names.
        arch: the architecture whose weights are wanted.
        prefix: take only what is under it, without it, as MMEngine does: ``backbone`` of a detector.

    Raises:
        UserError: no such file, not a checkpoint, or nothing under the prefix.
    """
    contents = _contents(checkpoint)
    container = next((name for name in CONTAINERS if isinstance(contents.get(name), Mapping)), None)
    weights = {name.removeprefix("module."): t for name, t in (contents[container] if container else contents).items()}
    if prefix:
        return _under(prefix, weights, checkpoint)
    if _STEM in weights or "://" in checkpoint:
        return weights
    weights, meta = load_backbone(checkpoint, arch, allow_partial=True)
    print_log(
        f"{checkpoint} is in {meta.format}'s format and expects {meta.channel_order or 'unknown'} pixels with the mean"
        f" {meta.pixel_mean} and std {meta.pixel_std}: compare model.data_preprocessor",
        logger="current",
    )
    return weights


def _under(prefix: str, weights: Mapping[str, Tensor], checkpoint: str) -> dict[str, Tensor]:
    prefix = prefix.rstrip(".") + "."
    found = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        parts = ", ".join(sorted({name.split(".")[0] for name in weights})[:5])
        raise UserError(
            f"nothing in '{checkpoint}' begins with '{prefix}'; its names begin with {parts}"
        )
    return found


def _contents(checkpoint: str) -> Mapping[str, Any]:
    if "://" not in checkpoint:
        return read(os.path.expanduser(checkpoint)).data
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu", logger="current")
    except (OSError, KeyError) as error:
        raise UserError(f"the weights '{checkpoint}' cannot be fetched: {error}") from error
