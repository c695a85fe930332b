"""A checkpointer that refuses weights which do not fill the backbone.

Detectron2's own only warns, and drops tensors of another shape before anything can compare them. Heads behave as
in Detectron2: what does not fit is listed in the log.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ...errors import UserError
from ...trunk import RegNet
from ...weights import load_backbone, resolvable, resolve
from ...weights.detectors.settings import check_settings
from ...weights.file import META_KEY, read, write
from ...weights.meta import CHANNEL_ORDERS, Meta
from ...weights.pixels import check_pixels
from ...weights.sidecar import read_sidecar
from ...weights.strict import compare, left_out, require_fit
from .backbone import BUILDERS
from .config import arch_from_config

STEM = "stem.conv.weight"  # every RegNet has it, under whatever prefix
SWITCH = "MODEL.REGNET.ALLOW_PARTIAL True"
UNCHECKED = "MODEL.REGNET.CHECK_PIXELS False"
logger = logging.getLogger(__name__)


class RegNetCheckpointer(DetectionCheckpointer):
    """Reads detectors (.pth, .pkl), with or without an FPN, and trunks in any format that ``convert`` reads.

    Args:
        cfg: the config that the model was built from; with it, the pixels that the weights expect are compared with
            those that the config feeds, and saved checkpoints say which ones they were trained on.

    Raises:
        UserError: no such file, not a checkpoint, one that does not fit the backbone (the sentence names keys and
            shapes) unless the backbone was built with ``allow_partial`` (``MODEL.REGNET.ALLOW_PARTIAL``), or one
            that expects other pixels (unless ``MODEL.REGNET.CHECK_PIXELS`` is False).
    """

    def __init__(self, model: Any, save_dir: str = "", *, cfg: CfgNode | None = None, **kwargs: Any) -> None:
        super().__init__(model, save_dir, **kwargs)
        self.cfg = cfg
        self.known: Meta | None = None  # what the file last read says of itself

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return super().load(fetch(path) if path else path, *args, **kwargs)
        finally:
            self._parsed_url_during_load = None  # Detectron2 forgets to after an exception

    def _load_file(self, filename: str) -> dict[str, Any]:
        contents = read(filename)
        data = contents.data
        if not isinstance(data.get("model"), dict):
            data = {"model": data}
        # Names are matched here, exactly; Detectron2's heuristics would drop what they cannot match.
        data.pop("matching_heuristics", None)
        self.known = contents.meta() or read_sidecar(filename)
        trunk = next((module for module in self.model.modules() if isinstance(module, RegNet)), None)
        if trunk is not None and not any(_is_stem(name) for name in data["model"]):
            tensors, self.known = load_backbone(filename, trunk.arch, allow_partial=True)
            data = {"model": tensors}
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
        if self.cfg is not None:
            check_pixels(
                self.known, fed_pixels(self.cfg), remedy=_remedy, strict=self.cfg.MODEL.REGNET.CHECK_PIXELS,
                switch=UNCHECKED,
            )  # fmt: skip
            known = self.known.settings if self.known else {}
            strict = self.cfg.MODEL.REGNET.CHECK_PIXELS
            check_settings(known, fpn_settings(self.cfg), "detectron2", strict=strict, switch=UNCHECKED)
        return super()._load_model(checkpoint)

    def save(self, name: str, **kwargs: Any) -> None:
        """As Detectron2's, but an interrupted one leaves no broken file."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data |= {key: value.state_dict() for key, value in self.checkpointables.items()} | kwargs
        if self.cfg is not None:
            data[META_KEY] = fed_pixels(self.cfg).to_dict()
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        write(path, data)
        self.tag_last_checkpoint(f"{name}.pth")


def fed_pixels(cfg: CfgNode) -> Meta:
    """The pixels that a config feeds its network; nothing for other images than those of three colours."""
    model = cfg.MODEL
    colours = cfg.INPUT.FORMAT in CHANNEL_ORDERS and len(model.PIXEL_MEAN) == len(model.PIXEL_STD) == 3
    return Meta(
        arch=arch_from_config(cfg).name if model.BACKBONE.NAME in BUILDERS else "",
        format="detectron2",
        channel_order=cfg.INPUT.FORMAT if colours else "",
        pixel_mean=tuple(model.PIXEL_MEAN) if colours else (),
        pixel_std=tuple(model.PIXEL_STD) if colours else (),
        settings=fpn_settings(cfg),
    )


def fpn_settings(cfg: CfgNode) -> dict[str, bool]:
    """What tensors do not tell of the RetinaNet that a config builds; nothing for other detectors."""
    fpn = cfg.MODEL.FPN
    if cfg.MODEL.BACKBONE.NAME != "build_retinanet_regnet_fpn_backbone":
        return {}
    return {"relu_before_p7": fpn.RELU_BEFORE_P7, "p6_from_p5": fpn.P6_FROM_P5}


def _remedy(known: Meta) -> str:
    mean, std = list(known.pixel_mean), list(known.pixel_std)
    return f"set INPUT.FORMAT {known.channel_order}, MODEL.PIXEL_MEAN {mean} and MODEL.PIXEL_STD {std}"


def fetch(path: str) -> str:
    """The local file that ``path`` means: a file, a name of the catalogue (``regnet://``), or an address.

    Raises:
        UserError: there is no such file or name, or the download failed.
    """
    if resolvable(path):
        return str(resolve(path)[0])
    path = path.removesuffix("?matching_heuristics=True")  # Detectron2's request for what happens here anyway
    try:
        local = PathManager.get_local_path(path)
    except Exception as error:  # whatever the handler of this kind of address raises
        raise UserError(f"the weights '{path}' cannot be fetched: {error}") from error
    if not os.path.isfile(local):
        raise UserError(f"there is no weight file '{path}'; correct MODEL.WEIGHTS ('' starts from random weights)")
    return local


def _is_stem(name: str) -> bool:
    return f".{name}".endswith(f".{STEM}")


def _placed(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The tensors under the name that the backbone has in this model, wherever it was in the checkpoint's."""
    found = [name[: -len(STEM)] for name in tensors if _is_stem(name)]
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
