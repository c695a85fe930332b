"""The Detectron2 backbone against Detectron2's own RegNet, and its interface."""

from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("detectron2")

from conftest import randomize, relative
from d2_common import CONFIGS
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling.backbone.regnet import RegNet as Peer
from detectron2.modeling.backbone.regnet import ResBottleneckBlock, SimpleStem

from regnet_backbones import get_arch
from regnet_backbones.adapters.detectron2 import RegNetBackbone

STAGES = ["s1", "s2", "s3", "s4"]
ARCHS = ("regnetx_200mf", "regnetx_800mf", "regnetx_3.2gf", "regnety_200mf", "regnety_600mf", "regnety_4gf")
SIZES = ((3, 97, 131), (3, 224, 224))


def peer_of(arch: str) -> nn.Module:
    point = get_arch(arch).point
    return Peer(
        stem_class=SimpleStem, stem_width=point.stem_width, block_class=ResBottleneckBlock, depth=point.depth,
        w_a=point.w_a, w_0=point.w_0, w_m=point.w_m, group_width=point.group_width, se_ratio=point.se_ratio,
        bottleneck_ratio=point.bot_mul, norm="BN", out_features=["stem", *STAGES],
    )  # fmt: skip


def pair(arch: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    peer = randomize(peer_of(arch)).eval().to(dtype)
    ours = RegNetBackbone(arch, out_features=["stem", *STAGES]).eval().to(dtype)
    ours.load_state_dict(peer.state_dict())
    return ours, peer


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("arch", ARCHS)
def test_features_equal_detectron2s_own(arch: str, size: tuple[int, ...]) -> None:
    ours, peer = pair(arch, torch.float32)
    image = torch.randn(1, *size)
    with torch.no_grad():
        features, expected = ours(image), peer(image)
    assert list(features) == list(expected)
    assert max(relative(features[name], expected[name]) for name in expected) < 1e-3


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("arch", ARCHS)
def test_features_and_gradients_equal_in_float64(arch: str, size: tuple[int, ...]) -> None:
    ours, peer = pair(arch, torch.float64)
    image = torch.randn(1, *size, dtype=torch.float64)
    images = [image.clone().requires_grad_() for _ in range(2)]
    features, expected = ours(images[0]), peer(images[1])
    for outputs in (features, expected):
        # Weights that vary over the map, so that no gradient cancels; of the size of the mean.
        sum(
            (f * torch.linspace(-1, 1, f.numel(), dtype=f.dtype).view_as(f)).mean() for f in outputs.values()
        ).backward()
    assert max(relative(features[name], expected[name]) for name in expected) < 1e-9
    assert relative(images[0].grad, images[1].grad) < 1e-9
    theirs = dict(peer.named_parameters())
    gradients = {name: relative(p.grad, theirs[name].grad) for name, p in ours.named_parameters()}
    assert max(gradients.values()) < 1e-9
    assert len(gradients) == len(theirs)


@pytest.mark.parametrize("arch", ARCHS)
def test_output_shape_is_detectron2s(arch: str) -> None:
    with torch.device("meta"):
        ours, peer = RegNetBackbone(arch, out_features=["stem", *STAGES]), peer_of(arch)
    assert ours.output_shape() == peer.output_shape()
    assert {**ours.state_dict()}.keys() == {**peer.state_dict()}.keys()


@pytest.mark.parametrize("freeze_at", [0, 1, 2, 3, 5])
def test_freeze_at_counts_as_in_detectron2(freeze_at: int) -> None:
    ours, peer = RegNetBackbone("regnetx_200mf", freeze_at=freeze_at), peer_of("regnetx_200mf").freeze(freeze_at)
    trained = {name for name, p in peer.named_parameters() if p.requires_grad}
    assert {name for name, p in ours.named_parameters() if p.requires_grad} == trained
    running = {name for name, m in ours.train().named_modules() if isinstance(m, nn.BatchNorm2d) and m.training}
    assert running == {name for name, m in peer.train().named_modules() if isinstance(m, nn.BatchNorm2d)}


@pytest.mark.parametrize("arch", ["regnety_4gf", "regnetx_200mf"])
def test_lazy_config_derives_channels_from_arch(arch: str, tmp_path: Path) -> None:
    config = LazyConfig.load(str(CONFIGS / "lazy" / "mask_rcnn_regnety_4gf.py"))
    config = LazyConfig.apply_overrides(config, [f"model.backbone.bottom_up.arch={arch}"])
    LazyConfig.save(config, str(tmp_path / "config.yaml"))
    with torch.device("meta"):
        model = instantiate(config.model)
    widths = [getattr(model.backbone, f"fpn_lateral{level}").in_channels for level in range(2, 6)]
    assert widths == [stage.width for stage in get_arch(arch).stages]
    assert (
        model.backbone.bottom_up.s1.b1.f.a.weight
        is dict(model.named_parameters())["backbone.bottom_up.s1.b1.f.a.weight"]
    )
