"""From what ``init_cfg`` names to tensors under the trunk's names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mmengine.model import PretrainedInit
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from ...arch import Arch
from ...errors import UserError
from ...weights import load_backbone, resolvable, resolve
from ...weights.file import read
from ...weights.meta import Meta
from ...weights.sidecar import read_sidecar

CONTAINERS = ("state_dict", "model", "model_state")  # of MMEngine, of Detectron2 and this project, of pycls
_STEM = "stem.conv.weight"


def is_pretrained(init_cfg: Mapping[str, Any]) -> bool:
    """Whether an initializer is MMEngine's loading from a file, by name or by class."""
    return init_cfg["type"] in ("Pretrained", PretrainedInit)


def read_weights(checkpoint: str, arch: Arch, prefix: str | None = None) -> tuple[dict[str, Tensor], Meta | None]:
    """The tensors of a checkpoint by the trunk's names, and what it says of itself.

    Whether they fit is the trunk's to say.

    Args:
        checkpoint: a file in any format that the project reads, a name of the catalogue (``regnet://``,
            ``open-mmlab://``), an address, or another scheme that MMEngine knows.
        arch: the architecture whose weights are wanted.
        prefix: take only what is under it, without it, as MMEngine does: ``backbone`` of a detector.

    Raises:
        UserError: no such file, not a checkpoint, or nothing under the prefix.
    """
    path = str(resolve(checkpoint)[0]) if resolvable(checkpoint) else os.path.expanduser(checkpoint)
    contents, meta = _contents(path)
    container = next((name for name in CONTAINERS if isinstance(contents.get(name), Mapping)), None)
    weights = {name.removeprefix("module."): t for name, t in (contents[container] if container else contents).items()}
    if prefix:
        return _under(prefix, weights, checkpoint), meta
    if "://" in path or (_STEM in weights and container != "model_state"):
        return weights, meta
    return load_backbone(path, arch, allow_partial=True)


def _under(prefix: str, weights: Mapping[str, Tensor], checkpoint: str) -> dict[str, Tensor]:
    prefix = prefix.rstrip(".") + "."
    found = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
    if not found:
        parts = ", ".join(sorted({name.split(".")[0] for name in weights})[:5])
        raise UserError(f"nothing in '{checkpoint}' begins with '{prefix}'; its names begin with {parts}")
    return found


def _contents(path: str) -> tuple[Mapping[str, Any], Meta | None]:
    if "://" not in path:
        contents = read(path)
        return contents.data, contents.meta() or read_sidecar(path)
    try:
        return CheckpointLoader.load_checkpoint(path, map_location="cpu", logger="current"), None
    except (OSError, KeyError) as error:
        raise UserError(f"the weights '{path}' cannot be fetched: {error}") from error
