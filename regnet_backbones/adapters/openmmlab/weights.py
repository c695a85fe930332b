"""From what ``init_cfg`` names to tensors under the trunk's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from ...errors import UserError
from ...weights.file import read

CONTAINERS = ("state_dict", "model", "model_state")  # of MMEngine, of Detectron2 and this project, of pycls


def is_pretrained(init_cfg: Mapping[str, Any]) -> bool:
    """Whether an initializer is MMEngine's loading from a file, by name or by class."""
    return init_cfg["type"] in ("Pretrained", PretrainedInit)


def read_weights(checkpoint: str, prefix: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name. Names of a catalogue and foreign formats are to be resolved here.

    Args:
        checkpoint: a file, or an address or scheme that MMEngine knows (``https://``, ``open-mmlab://``).
        prefix: take only what is under it, without it, as MMEngine does: ``backbone`` of a detector.

    Raises:
        UserError: no such file, not a checkpoint, or nothing under the prefix.
    """
    contents = _contents(checkpoint)
    for container in CONTAINERS:
        if isinstance(contents.get(container), Mapping):
            contents = contents[container]
            break
    weights = {name.removeprefix("module."): tensor for name, tensor in contents.items()}
    if not prefix:
        return weights
    prefix = prefix.rstrip(".") + "."
    found = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        parts = ", ".join(sorted({name.split(".")[0] for name in weights})[:5])
        raise UserError(f"nothing in '{checkpoint}' is called '{prefix}...'; its names begin with {parts}")
    return found


def _contents(checkpoint: str) -> Mapping[str, Any]:
    if "://" not in checkpoint:
        return read(os.path.expanduser(checkpoint)).data
    try:
        return CheckpointLoader.load_checkpoint(checkpoint, map_location="cpu", logger="current")
    except (OSError, KeyError) as error:
        raise UserError(f"the weights '{checkpoint}' cannot be fetched: {error}") from error
