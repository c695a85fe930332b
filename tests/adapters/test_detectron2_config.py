"""MODEL.REGNET: the keys of VISSL's published configs, names, contradictions, and what is derived from them."""

import re
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

import yaml
from d2_common import CONFIGS
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.modeling.backbone import build_backbone
from torch import nn

from regnet_backbones import UserError, archs, get_arch
from regnet_backbones.adapters.detectron2 import RegNetBackbone, add_regnet_config
from regnet_backbones.adapters.detectron2.config import PARAMETERS, arch_from_config
from regnet_backbones.norms import FrozenBatchNorm2d

FIVE_STAGES = "depth=12,w_0=16,w_a=20,w_m=2.1,group_width=8"
LEAVES = sorted(CONFIGS.glob("*.yaml")) + sorted(CONFIGS.glob("regnet_shapes/*.yaml"))

# vissl, configs/config/benchmark/object_detection: network; BGR or RGB; SyncBN with nothing frozen, or the defaults.
X3, Y16 = {"DEPTH": 25, "W0": 88, "WA": 26.31, "WM": 2.25, "GROUP_W": 48, "SE_R": 0.0}, {
    "DEPTH": 18, "W0": 200, "WA": 106.23, "WM": 2.48, "GROUP_W": 112, "SE_R": 0.25,
}  # fmt: skip
Y32 = {"DEPTH": 20, "W0": 232, "WA": 115.89, "WM": 2.53, "GROUP_W": 232, "SE_R": 0.25}
Y64 = {"DEPTH": 20, "W0": 352, "WA": 147.48, "WM": 2.4, "GROUP_W": 328, "SE_R": 0.25}
Y128 = {"DEPTH": 27, "W0": 456, "WA": 160.83, "WM": 2.52, "GROUP_W": 264, "SE_R": 0.25}
VISSL_FPN = {
    "RGX-3.2GF-FPN_1x_BGR_pycls_supervised": (X3, "RegNetX-3.2GF", "BGR", False),
    "RGY16/BGR_pycls_supervised": (Y16, "RegNetY-16GF", "BGR", False),
    "RGY16/BGR_pycls_supervised_sBN_FPNnorm_precBN_fz0": (Y16, "RegNetY-16GF", "BGR", True),
    "RGY16/sBN_FPNnorm_precBN_fz0": (Y16, "RegNetY-16GF", "RGB", True),
    "RGY32/BGR_pycls_supervised": (Y32, "RegNetY-32GF", "BGR", False),
    "RGY32/BGR_pycls_supervised_sBN_FPNnorm_precBN_fz0": (Y32, "RegNetY-32GF", "BGR", True),
    "RGY64_3/BGR_supervised_sBN_FPNNorm_pBNfz0": (Y64, "RegNetY-64GF", "BGR", True),
    "RGY64_3/sBN_FPNnorm_pBNfz0": (Y64, "RegNetY-64GF", "RGB", True),
    "RGY128/BGR_pycls_supervised_sBN_FPNnorm_precBN_fz0": (Y128, "RegNetY-128GF", "BGR", True),
    "RGY128/sBN_FPNnorm_precBN_fz0_lrpt02_warm100_1x": (Y128, "RegNetY-128GF", "RGB", True),
}


def config(path: str | None = None, *opts: Any) -> CfgNode:
    cfg = get_cfg()
    add_regnet_config(cfg)
    if path:
        cfg.merge_from_file(str(path))
    cfg.merge_from_list(["MODEL.DEVICE", "meta", *opts])
    return cfg


def on_meta(build: Any, cfg: CfgNode) -> nn.Module:
    with torch.device("meta"):
        return build(cfg)


def vissl_fpn(network: dict[str, float], order: str, synced: bool) -> dict[str, Any]:
    model = {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "ANCHOR_GENERATOR": {"SIZES": [[32], [64], [128], [256], [512]], "ASPECT_RATIOS": [[0.5, 1.0, 2.0]]},
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "PRE_NMS_TOPK_TRAIN": 2000, "PRE_NMS_TOPK_TEST": 1000,
            "POST_NMS_TOPK_TRAIN": 1000, "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 4, "POOLER_RESOLUTION": 14},
        "MASK_ON": True,
        "PIXEL_STD": [57.375, 57.120, 58.395] if order == "BGR" else [58.395, 57.120, 57.375],
        "BACKBONE": {"NAME": "build_regnet_fpn_backbone"},
        "REGNET": {"OUT_FEATURES": ["s1", "s2", "s3", "s4"]} | network,
        "FPN": {"IN_FEATURES": ["s1", "s2", "s3", "s4"]},
    }  # fmt: skip
    document = {
        "MODEL": model,
        "TEST": {"EVAL_PERIOD": 5000},
        "DATASETS": {"TRAIN": '("coco_2017_train",)', "TEST": '("coco_2017_val",)'},
        "SOLVER": {
            "IMS_PER_BATCH": 16, "BASE_LR": 0.02, "STEPS": "(60000, 80000)", "MAX_ITER": 90000, "WEIGHT_DECAY": 0.0001,
        },
        "INPUT": {"MIN_SIZE_TRAIN": "(640, 672, 704, 736, 768, 800)"},
        "VERSION": 2,
    }  # fmt: skip
    if order == "RGB":
        model["PIXEL_MEAN"] = [123.675, 116.280, 103.530]
        document["SOLVER"]["WARMUP_ITERS"] = 100
        document["INPUT"]["FORMAT"] = "RGB"
    if synced:
        model["BACKBONE"]["FREEZE_AT"] = 0
        model["REGNET"]["NORM"] = model["FPN"]["NORM"] = "SyncBN"
    return document


@pytest.mark.parametrize("name", VISSL_FPN)
def test_vissls_fpn_configs_build_the_network_they_name(name, tmp_path):
    network, arch, order, synced = VISSL_FPN[name]
    path = tmp_path / "vissl.yaml"
    path.write_text(yaml.safe_dump(vissl_fpn(network, order, synced)))
    model = on_meta(build_model, config(path))
    trunk = model.backbone.bottom_up
    assert trunk.arch == get_arch(arch)
    assert model.backbone.fpn_lateral5.in_channels == get_arch(arch).channels["s4"]
    norm = nn.SyncBatchNorm if synced else FrozenBatchNorm2d
    assert isinstance(trunk.s4.b1.bn, norm)
    frozen = {name.split(".")[0] for name, p in trunk.named_parameters() if not p.requires_grad}
    assert frozen == (set() if synced else {"stem", "s1"})


def test_vissls_c4_config_is_refused_with_a_sentence():
    cfg = config()
    cfg.merge_from_list(
        ["MODEL.BACKBONE.NAME", "build_regnet_backbone", "MODEL.ROI_HEADS.NAME", "Res5ROIHeadsExtraNorm"]
    )
    cfg.MODEL.REGNET.update(X3)
    with pytest.raises(UserError, match=r"Res5ROIHeadsExtraNorm exists only in VISSL; .*StandardROIHeads"):
        build_backbone(cfg)


def test_resnets_c4_head_is_refused_with_a_sentence():
    cfg = config(None, "MODEL.BACKBONE.NAME", "build_regnet_backbone", "MODEL.REGNET.ARCH", "regnetx_200mf")
    with pytest.raises(UserError, match="Res5ROIHeads ends in a ResNet's last stage"):
        build_backbone(cfg)


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: path.stem)
@pytest.mark.parametrize("arch", ["", "regnety_200mf", "RegNetX-6.4GF", FIVE_STAGES])
def test_every_config_fits_whatever_arch_overrides(leaf, arch):
    cfg = config(leaf, *(["MODEL.REGNET.ARCH", arch] if arch else []))
    backbone = on_meta(build_model, cfg).backbone
    widths = get_arch(cfg.MODEL.REGNET.ARCH).channels
    laterals = [m.in_channels for name, m in backbone.named_children() if name.startswith("fpn_lateral")]
    names = backbone.in_features
    assert laterals == [widths[name] for name in names]
    assert names == (("s2", "s3", "s4") if "retinanet" in leaf.stem else ("s1", "s2", "s3", "s4"))
    if "retinanet" in leaf.stem:
        assert backbone.top_block.p6.in_channels == widths["s4"]


@pytest.mark.parametrize("leaf", LEAVES, ids=lambda path: path.stem)
def test_leaves_are_short_and_carry_regnets_recipe(leaf):
    assert len(leaf.read_text().splitlines()) < 15
    cfg = config(leaf)
    assert cfg.SOLVER.WEIGHT_DECAY == 5e-5
    assert (cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN) == ("BGR", [103.53, 116.28, 123.675])
    clip = cfg.SOLVER.CLIP_GRADIENTS
    assert (clip.ENABLED and clip.CLIP_TYPE == "full_model") == ("retinanet" in leaf.stem)


def test_every_named_arch_is_found_by_its_name_and_by_its_parameters():
    for name, arch in archs().items():
        if arch.point.group_rounding != "pycls" or arch.block != "bottleneck":
            continue  # these have no key of their own: the name says it
        cfg = config()
        cfg.MODEL.REGNET.update({key: getattr(arch.point, attribute) for key, attribute in PARAMETERS.items()})
        assert arch_from_config(cfg) == arch
        cfg.MODEL.REGNET.ARCH = name  # both, in agreement
        assert arch_from_config(cfg) == arch


def test_options_reach_the_trunk():
    opts = {
        "OUTPUT_STRIDE": 8, "NORM": "GN", "NORM_EVAL": True, "DROP_PATH": 0.1, "CHECKPOINTING": True,
        "ALLOW_PARTIAL": True, "OUT_FEATURES": ["s2", "s4"], "ARCH": "regnetx_200mf",
    }  # fmt: skip
    cfg = config(None, "MODEL.BACKBONE.NAME", "build_regnet_backbone", "MODEL.META_ARCHITECTURE", "none")
    cfg.MODEL.REGNET.update(opts)
    cfg.MODEL.PIXEL_MEAN = [0.5]
    trunk = on_meta(build_backbone, cfg)
    assert isinstance(trunk, RegNetBackbone)
    assert {name: shape.stride for name, shape in trunk.output_shape().items()} == {"s2": 8, "s4": 8}
    assert isinstance(trunk.s1.b1.bn, nn.GroupNorm)
    assert (trunk.norm_eval, trunk.checkpointing, trunk.allow_partial) == (True, True, True)
    assert trunk.s4[-1].drop_path.rate == pytest.approx(0.1)
    assert trunk.stem.conv.in_channels == 1
    assert trunk.freeze_at == 2  # Detectron2's default


@pytest.mark.parametrize("last", ["s3", "s4"])
def test_fpn_may_end_before_the_last_stage(last):
    cfg = config(CONFIGS / "mask_rcnn_regnety_4gf.yaml", "MODEL.REGNET.ARCH", "regnetx_200mf")
    cfg.MODEL.FPN.IN_FEATURES = ["s1", "s2", "s3", "s4"][: int(last[1])]
    cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4"]
    cfg.MODEL.DEVICE = "cpu"
    with torch.no_grad():
        features = build_backbone(cfg)(torch.zeros(1, 3, 64, 64))
    coarsest = {"s3": "p5", "s4": "p6"}[last]
    assert features[coarsest].shape[-1] == 64 / 2 ** int(coarsest[1])


FPN = ("MODEL.BACKBONE.NAME", "build_regnet_fpn_backbone")
X200 = ("MODEL.REGNET.ARCH", "regnetx_200mf")
WRONG = {
    "unknown arch": ((*FPN, "MODEL.REGNET.ARCH", "regnety_5gf"), r"no RegNet called 'regnety_5gf'; .*RegNetY-"),
    "no arch": (FPN, r"does not say which RegNet: set MODEL\.REGNET\.ARCH"),
    "one parameter missing": (
        (*FPN, "MODEL.REGNET.DEPTH", 13, "MODEL.REGNET.W0", 24, "MODEL.REGNET.WA", 36.4, "MODEL.REGNET.WM", 2.49),
        r"missing: GROUP_W",
    ),
    "contradiction": ((*FPN, *X200, "MODEL.REGNET.DEPTH", 14), r"ARCH RegNetX-200MF has DEPTH 13, but .*DEPTH is 14"),
    "unknown out feature": ((*FPN, *X200, "MODEL.REGNET.OUT_FEATURES", "['s1', 's7']"), r"no feature 's7'; .*stem, s1"),
    "FPN feature not put out": (
        (*FPN, *X200, "MODEL.REGNET.OUT_FEATURES", "['s1']", "MODEL.FPN.IN_FEATURES", "['s2']"),
        r"FPN\.IN_FEATURES asks for s2",
    ),
    "strides that do not double": ((*FPN, *X200, "MODEL.REGNET.OUTPUT_STRIDE", 16), r"strides double"),
    "head on a feature that is not there": ((*FPN, *X200), r"MODEL\.RPN\.IN_FEATURES asks for res4"),
    "unknown norm": ((*FPN, *X200, "MODEL.REGNET.NORM", "XBN"), r"no norm called 'XBN'"),
    "freeze_at": ((*FPN, *X200, "MODEL.BACKBONE.FREEZE_AT", 9), r"freeze_at=9"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_options_get_a_sentence(case):
    opts, sentence = WRONG[case]
    cfg = config(None, "MODEL.ROI_HEADS.NAME", "StandardROIHeads", *opts)
    with pytest.raises(UserError, match=sentence):
        on_meta(build_backbone, cfg)


def test_every_key_is_documented():
    source = (CONFIGS.parents[1] / "regnet_backbones/adapters/detectron2/config.py").read_text()
    lines = source.splitlines()
    for number, line in enumerate(lines):
        if re.match(r"\s+node\.[A-Z0-9_]+ = ", line):
            assert "#" in line or "#" in lines[number - 1], line


def test_builders_are_registered():
    for name in ("build_regnet_backbone", "build_regnet_fpn_backbone", "build_retinanet_regnet_fpn_backbone"):
        assert name in BACKBONE_REGISTRY
