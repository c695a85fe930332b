"""Configs and the channels that are derived when a model is built."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import ROOT

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.registry import MODELS

from regnet_backbones import UserError, get_arch
from regnet_backbones.adapters.openmmlab import RegNetBackbone

CONFIGS = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("configs/mm*/*.py"))
SMALL = "regnety_200mf"
WIDTHS = [24, 56, 152, 368]


def load(path: str, **overrides) -> Config:
    config = Config.fromfile(ROOT / path)
    config.merge_from_dict(overrides)
    return config


def built(config: Config) -> torch.nn.Module:
    with MODELS.switch_scope_and_registry(config.default_scope) as registry:
        return registry.build(config.model)


def read_widths(model: torch.nn.Module) -> list[int]:
    """Input channels of the first layers behind the backbone."""
    if hasattr(model, "neck"):
        return [layer.conv.in_channels for layer in model.neck.lateral_convs]
    return list(model.decode_head.in_channels)


def behind(model: torch.nn.Module) -> list[int]:
    """The widths that are expected there: a RetinaNet's FPN starts one level later."""
    widths = list(model.backbone.arch.channels.values())[1:]
    return widths[getattr(getattr(model, "neck", None), "start_level", 0) :]


def test_there_are_configs_for_both():
    assert {path.split("/")[1] for path in CONFIGS} == {"mmdet", "mmseg"}


@pytest.mark.parametrize("path", CONFIGS)
def test_config_is_small_and_fits_any_arch(path):
    lines = [line for line in (ROOT / path).read_text().splitlines() if line.strip() and not line.startswith("#")]
    assert len(lines) < 15
    own = get_arch(load(path).model.backbone.arch)
    assert own.name.lower().replace("-", "").replace(".0gf", "gf") in path.replace("-", "")
    model = built(load(path, **{"model.backbone.arch": SMALL}))
    assert model.backbone.arch.name == "RegNetY-200MF"
    assert read_widths(model) == behind(model)


@pytest.mark.parametrize("path", CONFIGS)
def test_no_channels_stand_in_a_config(path):
    model = load(path).model
    neck = model.get("neck") or {}
    heads = [] if neck else [model.decode_head, model.auxiliary_head]
    assert [part.get("in_channels") for part in (neck, *heads)] == [None] * (1 + len(heads))


@pytest.mark.parametrize("path", [next(p for p in CONFIGS if kind in p) for kind in ("retinanet", "upernet")])
@pytest.mark.parametrize("arch", [SMALL, {"depth": 13, "w0": 24, "wa": 36.44, "wm": 2.49, "group_w": 8}], ids=str)
def test_arch_overridden_by_a_child_config(path, arch, tmp_path):
    child = tmp_path / "child.py"
    written = repr(arch) if isinstance(arch, str) else f"dict(_delete_=True, **{arch!r})"
    child.write_text(f"_base_ = {str(ROOT / path)!r}\nmodel = dict(backbone=dict(arch={written}))\n")
    model = built(Config.fromfile(child))
    assert list(model.backbone.arch.channels.values())[1:] == WIDTHS
    assert read_widths(model) == behind(model)


def test_heads_of_a_segmentor_read_their_own_feature():
    path = next(path for path in CONFIGS if "upernet" in path)
    model = built(load(path, **{"model.backbone.arch": SMALL})).eval()
    assert model.auxiliary_head.in_channels == WIDTHS[2]
    with torch.no_grad():
        assert model(torch.rand(1, 3, 64, 64)).shape[:2] == (1, 150)


def fpn(**neck) -> dict:
    return {
        "type": "DeriveChannels", "model_type": "mmdet.RetinaNet",
        "backbone": {"type": "RegNetBackbone", "arch": SMALL},
        "neck": {"type": "mmdet.FPN", "out_channels": 8, "num_outs": 4} | neck,
        "bbox_head": {"type": "mmdet.RetinaHead", "num_classes": 3, "in_channels": 8, "feat_channels": 8},
    }  # fmt: skip


def segmentor(head: dict, **backbone) -> dict:
    head = {"type": "mmseg.FCNHead", "channels": 8, "num_classes": 3, "num_convs": 1, "concat_input": False} | head
    backbone = {"type": "RegNetBackbone", "arch": SMALL} | backbone
    return {"type": "DeriveChannels", "model_type": "mmseg.EncoderDecoder", "backbone": backbone, "decode_head": head}


def test_in_index_chooses_and_defaults_to_the_last():
    assert MODELS.build(segmentor({})).decode_head.in_channels == 368
    assert MODELS.build(segmentor({"in_index": 1})).decode_head.in_channels == 56
    head = MODELS.build(segmentor({"in_index": [0, 2], "input_transform": "resize_concat"})).decode_head
    assert head.in_channels == 24 + 152
    assert MODELS.build(segmentor({}, out_indices=(0, 1))).decode_head.in_channels == 56


def test_a_cascade_of_heads_and_deeplab():
    config = segmentor({})
    config |= {"model_type": "mmseg.CascadeEncoderDecoder", "num_stages": 2}
    plus = {"type": "mmseg.DepthwiseSeparableASPPHead", "channels": 8, "num_classes": 3, "c1_in_channels": None}
    plus |= {"c1_channels": 4, "dilations": (1, 2), "in_index": 3}
    config["decode_head"] = [config["decode_head"], plus]
    first, second = MODELS.build(config).decode_head
    assert first.in_channels == second.in_channels == 368
    assert second.c1_bottleneck.conv.in_channels == 24


def test_only_the_first_of_a_chain_of_necks_reads_the_backbone():
    config = fpn()
    config["neck"] = [config["neck"], {"type": "mmdet.BFP", "in_channels": 8, "num_levels": 4, "refine_level": 1}]
    assert [conv.conv.in_channels for conv in MODELS.build(config).neck[0].lateral_convs] == WIDTHS


def test_right_channels_may_be_given_and_wrong_ones_are_refused():
    assert read_widths(MODELS.build(fpn(in_channels=WIDTHS))) == WIDTHS
    with pytest.raises(UserError, match=r"model.neck.in_channels=\[256, 512\].*\[24, 56, 152, 368\]"):
        MODELS.build(fpn(in_channels=[256, 512]))
    with pytest.raises(UserError, match=r"model.decode_head.in_channels=56 .* gives 368"):
        MODELS.build(segmentor({"in_channels": 56}))
    with pytest.raises(UserError, match="in_index=3 asks for more features than the 2"):
        MODELS.build(segmentor({"in_index": 3}, out_indices=(0, 1)))


def test_any_backbone_that_tells_its_channels_will_do():
    @MODELS.register_module(name="Halved", force=True)
    class Halved(RegNetBackbone):
        @classmethod
        def channels_of(cls, **config):
            return [c // 2 for c in super().channels_of(**config)]

    config = fpn()
    config["backbone"]["type"] = "Halved"
    assert read_widths(MODELS.build(config)) == [12, 28, 76, 184]
    config["backbone"] = {"type": "mmdet.ResNet", "depth": 18}
    with pytest.raises(UserError, match=r"channels.*mmdet.ResNet cannot"):
        MODELS.build(config)


def test_the_config_is_left_as_it_was():
    config = load(CONFIGS[0], **{"model.backbone.arch": SMALL})
    before = copy.deepcopy([config.model[name] for name in ("type", "backbone", "neck")])
    built(config)
    assert [config.model[name] for name in ("type", "backbone", "neck")] == before
