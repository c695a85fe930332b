"""A checkpointer that refuses weights which do not fill the backbone.

Detectron2's own only warns, and drops tensors of another shape before anything can compare them. Heads behave as
in Detectron2: what does not fit is listed in the log.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils.file_io import PathManager

from ...errors import UserError
from ...trunk import RegNet
from ...weights.file import read, write
from ...weights.strict import compare, left_out, require_fit

STEM = "stem.conv.weight"  # every RegNet has it, under whatever prefix
SWITCH = "MODEL.REGNET.ALLOW_PARTIAL True"
logger = logging.getLogger(__name__)


class RegNetCheckpointer(DetectionCheckpointer):
    """Reads checkpoints of detectors (.pth, .pkl), with or without an FPN, and of bare trunks (ours, pycls' .pyth).

    Raises:
        UserError: no such file, not a checkpoint, or one that does not fit the backbone (the sentence names keys and
            shapes) unless the backbone was built with ``allow_partial`` (``MODEL.REGNET.ALLOW_PARTIAL``).
    """

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return super().load(fetch(path) if path else path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # Detectron2 forgets to after an exception

    def _load_file(self, filename: str) -> dict[str, Any]:
        data = read(filename).data
        if not isinstance(data.get("model"), dict):
            data = {"model": data.get("model_state", data)}  # the second is pycls'
        # Names are matched here, exactly; Detectron2's heuristics would drop what they cannot match.
        data.pop("matching_heuristics", None)
        return data

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        tensors = {name.removeprefix("module."): tensor for name, tensor in checkpoint["model"].items()}
        if not all(hasattr(tensor, "shape") for tensor in tensors.values()):
            raise UserError("the checkpoint's entry 'model' holds other things than named tensors; give another file")
        for name, module in self.model.named_modules():
            if isinstance(module, RegNet):
                tensors = _placed(tensors, f"{name}." if name else "")
                _check(module, f"{name}." if name else "", tensors)
        checkpoint["model"] = tensors
        return super()._load_model(checkpoint)

    def save(self, name: str, **kwargs: Any) -> None:
        """As Detectron2's, but an interrupted one leaves no broken file."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()} | kwargs
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        write(path, data)
        self.tag_last_checkpoint(f"{name}.pth")


def fetch(path: str) -> str:
    """The local file that ``path`` means: a file, or an address that Detectron2 can download.

    Raises:
        UserError: there is no such file, or the download failed.
    """
    # The place for other kinds of names (a catalogue's) and for converting foreign formats is here and in
    # RegNetCheckpointer._load_file.
    path = path.removesuffix("?matching_heuristics=True")  # Detectron2's request for what happens here anyway
    try:
        local = PathManager.get_local_path(path)
    except Exception as error:  # whatever the handler of this kind of address raises
        raise UserError(f"the weights '{path}' cannot be fetched: {error}") from error
    if not os.path.isfile(local):
        raise UserError(f"there is no weight file '{path}'; correct MODEL.WEIGHTS ('' starts from random weights)")
    return local


def _placed(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors under the name that the backbone has in this model, wherever it was in the checkpoint's."""
    found = [name[: -len(STEM)] for name in tensors if f".{name}".endswith(f".{STEM}")]
    if len(found) != 1 or found[0] == prefix:
        return tensors
    theirs = found[0]
    logger.info("the checkpoint's backbone '%s' is this model's '%s'", theirs.rstrip("."), prefix.rstrip("."))
    return {
        prefix + name[len(theirs) :] if name.startswith(theirs) else name: tensor for name, tensor in tensors.items()
    }


def _check(trunk: RegNet, prefix: str, tensors: dict[str, Any]) -> None:
    if trunk.allow_partial:  # then the trunk's own loading logs what does not fit
        return
    given = {name[len(prefix) :]: tuple(t.shape) for name, t in tensors.items() if name.startswith(prefix)}
    unused = left_out(given, {"head", *trunk.arch.channels} - {name for name, _ in trunk.named_children()})
    ours = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    fit = compare(ours, {name: shape for name, shape in given.items() if name not in unused})
    require_fit(fit, f"the backbone {trunk.arch.name}", allow_partial=False, switch=SWITCH)
