"""Every peer's own RegNet: built from its installed package, saved and loaded as the peer does it.

A peer is a class with ``make(arch)``, ``save(model, folder)`` giving the file, ``features(model, x)`` from ``stem``
to the last stage, ``load(model, file)`` strictly, and ``suffix`` of the file it loads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from regnet_backbones import Arch


def _parameters(arch: Arch) -> dict[str, float]:
    """In the spelling of torchvision, ClassyVision and Detectron2."""
    point = arch.point
    return {name: getattr(point, name) for name in ("depth", "w_0", "w_a", "w_m", "group_width")}


def _chain(parts: list[nn.Module], x: Tensor) -> list[Tensor]:
    features = []
    for part in parts:
        x = part(x)
        features.append(x)
    return features


class Pycls:
    """Its checkpoint functions write the optimizer and the config too."""

    format, suffix = "pycls", ".pyth"

    def make(self, arch: Arch) -> nn.Module:
        regnet = pytest.importorskip("pycls.models.regnet")
        options = regnet.cfg.REGNET
        options.DEPTH, options.W0, options.WA = arch.point.depth, arch.point.w_0, arch.point.w_a
        options.WM, options.GROUP_W, options.SE_ON = arch.point.w_m, arch.point.group_width, bool(arch.se_ratio)
        return regnet.RegNet()

    def save(self, model: nn.Module, folder: Path) -> Path:
        from pycls.core import checkpoint
        from pycls.core.config import cfg

        cfg.OUT_DIR = str(folder)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return Path(checkpoint.save_checkpoint(model, optimizer, 0))

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        return _chain([model.stem, *(stage for name, stage in model.named_children() if re.match(r"s\d", name))], x)

    def load(self, model: nn.Module, path: Path) -> None:
        from pycls.core import checkpoint

        checkpoint.load_checkpoint(str(path), model)


class Torchvision:
    """4GF, which it does not publish, is built by its own generator."""

    format, suffix = "torchvision", ".pth"

    def make(self, arch: Arch) -> nn.Module:
        regnet = pytest.importorskip("torchvision.models.regnet")
        se_ratio = arch.se_ratio or None
        return regnet.RegNet(regnet.BlockParams.from_init_params(**_parameters(arch), se_ratio=se_ratio))

    def save(self, model: nn.Module, folder: Path) -> Path:
        torch.save(model.state_dict(), folder / "torchvision.pth")
        return folder / "torchvision.pth"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        return _chain([model.stem, *model.trunk_output], x)

    def load(self, model: nn.Module, path: Path) -> None:
        model.load_state_dict(torch.load(path, weights_only=True), strict=True)


class Timm:
    """Published as safetensors."""

    format, suffix = "timm", ".safetensors"

    def __init__(self, **options) -> None:
        self.options = options

    def make(self, arch: Arch) -> nn.Module:
        timm = pytest.importorskip("timm")
        megaflops = arch.name.split("-")[1].removesuffix("_tv")
        size = float(megaflops[:-2]) * (10 if megaflops.endswith("GF") else 0.01)
        return timm.create_model(f"regnet{arch.name[6].lower()}_{round(size):03d}", **self.options)

    def save(self, model: nn.Module, folder: Path) -> Path:
        from safetensors.torch import save_model

        save_model(model, str(folder / "model.safetensors"))
        return folder / "model.safetensors"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        if self.options.get("features_only"):
            return model(x)
        return model.forward_intermediates(x, intermediates_only=True)

    def load(self, model: nn.Module, path: Path) -> None:
        from timm.models import load_checkpoint

        load_checkpoint(model, str(path), strict=True)


class Detectron2:
    """Alone, as its checkpointer writes a backbone."""

    format, suffix = "detectron2", ".pth"

    def make(self, arch: Arch) -> nn.Module:
        regnet = pytest.importorskip("detectron2.modeling.backbone.regnet")
        return regnet.RegNet(
            stem_class=regnet.SimpleStem, stem_width=arch.stem_width, block_class=regnet.ResBottleneckBlock,
            se_ratio=arch.se_ratio, norm="BN", out_features=list(arch.channels), **_parameters(arch),
        )  # fmt: skip

    def save(self, model: nn.Module, folder: Path) -> Path:
        from detectron2.checkpoint import DetectionCheckpointer

        DetectionCheckpointer(model, str(folder)).save("detectron2")
        return folder / "detectron2.pth"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        return list(model(x).values())

    def load(self, model: nn.Module, path: Path) -> None:
        model.load_state_dict(torch.load(path, weights_only=True)["model"], strict=True)


class OpenMMLab:
    """MMDetection's backbone; its published files are the state dict of the classifier it came from."""

    format, suffix, package = "mmdet", ".pth", "mmdet"

    def make(self, arch: Arch) -> nn.Module:
        regnet = pytest.importorskip(f"{self.package}.models.backbones.regnet")
        point = arch.point
        parameters = {"w0": point.w_0, "wa": point.w_a, "wm": point.w_m, "group_w": point.group_width}
        return regnet.RegNet(parameters | {"depth": point.depth, "bot_mul": 1.0}, out_indices=(0, 1, 2, 3))

    def save(self, model: nn.Module, folder: Path) -> Path:
        from mmengine.runner import save_checkpoint

        save_checkpoint({"meta": {"epoch": 1}, "state_dict": model.state_dict()}, str(folder / "openmmlab.pth"))
        return folder / "openmmlab.pth"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        backbone = getattr(model, "backbone", model)
        stem = backbone.relu(backbone.bn1(backbone.conv1(x)))
        return _chain([nn.Identity(), *(getattr(backbone, name) for name in backbone.res_layers)], stem)

    def load(self, model: nn.Module, path: Path) -> None:
        from mmengine.runner import load_checkpoint

        load_checkpoint(model, str(path), map_location="cpu", strict=True)


class MMPretrain(OpenMMLab):
    """The whole classifier."""

    format, package = "mmpretrain", "mmpretrain"

    def make(self, arch: Arch) -> nn.Module:
        classifiers = pytest.importorskip("mmpretrain.models")
        backbone = super().make(arch)
        head = {"type": "LinearClsHead", "num_classes": 7, "in_channels": backbone.feat_dim}
        return classifiers.ImageClassifier(backbone=backbone, neck={"type": "GlobalAveragePooling"}, head=head)


class Transformers:
    """As ``save_pretrained`` and ``from_pretrained`` do; the second does not check strictly, so PyTorch's does."""

    format, suffix = "transformers", ".safetensors"

    def __init__(self, model: str) -> None:
        self.model = model

    def make(self, arch: Arch) -> nn.Module:
        transformers = pytest.importorskip("transformers")
        config = transformers.RegNetConfig(
            embedding_size=arch.stem_width, hidden_sizes=[s.width for s in arch.stages],
            depths=[s.depth for s in arch.stages], groups_width=arch.stages[-1].group_width,
            layer_type="y" if arch.se_ratio else "x", num_labels=7,
        )  # fmt: skip
        return getattr(transformers, self.model)(config)

    def save(self, model: nn.Module, folder: Path) -> Path:
        model.save_pretrained(folder)
        return folder / "model.safetensors"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        return list(model(x, output_hidden_states=True).hidden_states)

    def load(self, model: nn.Module, path: Path) -> None:
        from safetensors.torch import load_file

        model.load_state_dict(load_file(path), strict=True)


class ClassyVision:
    """As its checkpoint hook nests the model's state."""

    format, suffix = "classyvision", ".torch"

    def make(self, arch: Arch) -> nn.Module:
        regnet = pytest.importorskip("classy_vision.models.regnet")
        return regnet.RegNet(regnet.RegNetParams(**_parameters(arch), use_se=bool(arch.se_ratio)))

    def state(self, model: nn.Module) -> dict:
        return model.get_classy_state()

    def save(self, model: nn.Module, folder: Path) -> Path:
        torch.save({"classy_state_dict": {"base_model": self.state(model)}}, folder / "checkpoint.torch")
        return folder / "checkpoint.torch"

    def features(self, model: nn.Module, x: Tensor) -> list[Tensor]:
        return _chain([model.stem, *model.trunk_output], x)

    def load(self, model: nn.Module, path: Path) -> None:
        state = torch.load(path, weights_only=True)["classy_state_dict"]["base_model"]
        model.set_classy_state(self.back(state), strict=True)

    def back(self, state: dict) -> dict:
        return state


class Vissl(ClassyVision):
    """VISSL wraps ClassyVision's modules under names of its own; it does not import, so they are renamed here."""

    format = "vissl"

    def __init__(self, infix: str = "") -> None:
        self.infix = infix

    def state(self, model: nn.Module) -> dict:
        trunk = model.get_classy_state()["model"]["trunk"]
        return {"model": {"trunk": {self.theirs(name): tensor for name, tensor in trunk.items()}, "heads": {}}}

    def theirs(self, name: str) -> str:
        if name.startswith("stem."):
            return f"_feature_blocks.conv1.{name.removeprefix('stem.')}"
        _, stage, rest = name.split(".", 2)
        return f"_feature_blocks.res{int(stage[-1]) + 1}{self.infix}.{rest}"

    def back(self, state: dict) -> dict:
        trunk = {}
        for name, tensor in state["model"]["trunk"].items():
            _, part, rest = name.split(".", 2)
            known = f"stem.{rest}" if part == "conv1" else f"trunk_output.block{int(part[3:]) - 1}.{rest}"
            trunk[known] = tensor
        return {"model": {"trunk": trunk, "heads": {}}}


PEERS: dict[str, Callable] = {
    "pycls": Pycls,
    "torchvision": Torchvision,
    "timm": Timm,
    "timm-features": partial(Timm, features_only=True, out_indices=(0, 1, 2, 3, 4)),
    "detectron2": Detectron2,
    "mmdet": OpenMMLab,
    "mmpretrain": MMPretrain,
    "transformers": partial(Transformers, "RegNetForImageClassification"),
    "transformers-trunk": partial(Transformers, "RegNetModel"),
    "classyvision": ClassyVision,
    "vissl": Vissl,
    "vissl-sharded": partial(Vissl, ".block0-part1"),
}
