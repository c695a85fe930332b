"""RegNetBackbone against MMDetection's own RegNet and its tests' expectations."""

from __future__ import annotations

import copy

import pytest
import torch
from conftest import randomize, relative
from torch import nn

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmdet.models.backbones import RegNet as MMDetRegNet
from mmdet.registry import MODELS as MMDET
from mmengine.registry import MODELS
from mmseg.registry import MODELS as MMSEG
from torch.nn.modules.batchnorm import _BatchNorm

from regnet_backbones import UserError
from regnet_backbones.adapters.openmmlab import RegNetBackbone

# The archs that MMDetection's test names, their parameters under its keys, and the channels it expects.
MMDET_ARCHS = {
    "regnetx_400mf": ((24, 24.48, 2.54, 16, 22), [32, 64, 160, 384]),
    "regnetx_800mf": ((56, 35.73, 2.28, 16, 16), [64, 128, 288, 672]),
    "regnetx_1.6gf": ((80, 34.01, 2.25, 24, 18), [72, 168, 408, 912]),
    "regnetx_3.2gf": ((88, 26.31, 2.25, 48, 25), [96, 192, 432, 1008]),
    "regnetx_4.0gf": ((96, 38.65, 2.43, 40, 23), [80, 240, 560, 1360]),
    "regnetx_6.4gf": ((184, 60.83, 2.07, 56, 17), [168, 392, 784, 1624]),
    "regnetx_8.0gf": ((80, 49.56, 2.88, 120, 23), [80, 240, 720, 1920]),
    "regnetx_12gf": ((168, 73.36, 2.37, 112, 19), [224, 448, 896, 2240]),
}
LAYERS = {"f.a": "conv1", "f.a_bn": "bn1", "f.b": "conv2", "f.b_bn": "bn2", "f.c": "conv3", "f.c_bn": "bn3"}
LAYERS |= {"proj": "downsample.0", "bn": "downsample.1"}


def mmdet_name(ours: str) -> str:
    """``s2.b1.f.a.weight`` -> ``layer2.0.conv1.weight``."""
    if ours.startswith("stem."):
        return ours.replace("stem.conv", "conv1").replace("stem.bn", "bn1")
    stage, block, *layer, tensor = ours.split(".")
    return f"layer{stage[1:]}.{int(block[1:]) - 1}.{LAYERS['.'.join(layer)]}.{tensor}"


def parameters(name: str) -> dict[str, float]:
    return dict(zip(("w0", "wa", "wm", "group_w", "depth"), MMDET_ARCHS[name][0], strict=True)) | {"bot_mul": 1.0}


@pytest.mark.parametrize("arch", ["regnetx_400mf", "regnetx_800mf", "regnetx_1.6gf", "regnetx_3.2gf"])
@torch.no_grad()
def test_features_equal_mmdets_own(arch):
    theirs = randomize(MMDetRegNet(arch))
    theirs.eval()  # returns None
    ours = RegNetBackbone(arch).eval()
    state = theirs.state_dict()
    ours.load_state_dict({name: state[mmdet_name(name)] for name in ours.state_dict()})
    assert len(state) == len(ours.state_dict())
    for dtype, tolerance, sizes in ((torch.float32, 1e-3, [(97, 131)]), (torch.float64, 1e-9, [(97, 131), (224, 224)])):
        ours.to(dtype), theirs.to(dtype)
        for size in sizes:
            x = torch.randn(1, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(1))
            for mine, other in zip(ours(x), theirs(x), strict=True):
                assert relative(mine, other) < tolerance, (dtype, size)


@pytest.mark.parametrize("by", ["name", "parameters"])
@pytest.mark.parametrize("arch", MMDET_ARCHS)
@torch.no_grad()
def test_shapes_that_mmdets_test_expects(arch, by):
    model = RegNetBackbone(arch if by == "name" else parameters(arch))
    model.init_weights()
    model.train()
    shapes = [tuple(feature.shape) for feature in model(torch.randn(1, 3, 32, 32))]
    assert shapes == [(1, c, size, size) for c, size in zip(MMDET_ARCHS[arch][1], (8, 4, 2, 1), strict=True)]


def test_unknown_arch_names_the_nearest():
    with pytest.raises(UserError, match="RegNetX-400MF"):
        RegNetBackbone("regnetx_400mf233")


@pytest.mark.parametrize("frozen_stages", [-1, 0, 1, 3])
def test_frozen_stages_stay_frozen_and_in_eval_mode(frozen_stages):
    model = RegNetBackbone("regnety_200mf", frozen_stages=frozen_stages, norm_eval=False)
    model.train()
    for i, part in enumerate((model.stem, model.s1, model.s2, model.s3, model.s4)):
        frozen = i <= frozen_stages
        assert all(p.requires_grad is not frozen for p in part.parameters()), i
        assert all(m.training is not frozen for m in part.modules() if isinstance(m, _BatchNorm)), i


def test_norm_eval_keeps_statistics_but_learns():
    model = RegNetBackbone("regnetx_200mf", norm_eval=True).train()
    before = copy.deepcopy(model.state_dict())
    sum(f.sum() for f in model(torch.randn(2, 3, 64, 64))).backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
    assert all(p.grad is not None for p in model.parameters())


def test_checkpointing_gives_the_same_gradients():
    plain = RegNetBackbone("regnety_200mf", norm_eval=False).double().train()
    cheap = RegNetBackbone("regnety_200mf", norm_eval=False, with_cp=True).double().train()
    cheap.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    calls = []
    cheap.s1.b1.f.a.register_forward_hook(lambda *_: calls.append(1))
    for model in (plain, cheap):
        sum((f**2).mean() for f in model(x)).backward()
    assert len(calls) == 2, "recomputed once"
    for (name, a), b in zip(plain.named_parameters(), cheap.parameters(), strict=True):
        assert relative(b.grad, a.grad) < 1e-9, name
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), cheap.buffers(), strict=True))


@pytest.mark.parametrize("registry", [MODELS, MMDET, MMSEG], ids=["root", "mmdet", "mmseg"])
def test_found_from_every_scope(registry):
    model = registry.build({"type": "RegNetBackbone", "arch": "regnetx_200mf", "out_indices": (1, 3)}).eval()
    assert [f.shape[1] for f in model(torch.rand(1, 3, 32, 32))] == [56, 368]
    assert not [
        name for name, _ in model.named_parameters() if name.split(".")[0] not in ("stem", "s1", "s2", "s3", "s4")
    ]


def test_parameters_as_cfg_options_give_them():
    split = ["depth=13", "w_0=24", "w_a=36.44", "w_m=2.49", "group_width=8"]
    assert RegNetBackbone(split).arch.name == "RegNetX-200MF"
    assert RegNetBackbone.channels_of(arch=split, frozen_stages=1, out_indices=(3, 0)) == [24, 368]


@pytest.mark.parametrize(
    ("norm_cfg", "kind"),
    [
        ({"type": "BN", "requires_grad": False}, nn.BatchNorm2d),
        ({"type": "SyncBN"}, nn.SyncBatchNorm),
        ({"type": "GN", "num_groups": 32}, nn.GroupNorm),
        ({"type": "LN", "eps": 1e-6}, nn.LayerNorm),
        ({"type": "IN", "affine": True}, nn.InstanceNorm2d),
        ({"type": "BN", "momentum": 0.01, "eps": 1e-3}, nn.BatchNorm2d),
    ],
    ids=str,
)
def test_norm_cfg(norm_cfg, kind):
    model = RegNetBackbone("regnetx_200mf", norm_cfg=norm_cfg)
    norms = [m for m in model.modules() if isinstance(m, kind)]
    assert len(norms) == 1 + 4 + 3 * 13
    assert all(p.requires_grad is norm_cfg.get("requires_grad", True) for m in norms for p in m.parameters())
    assert {m.eps for m in norms} == {norm_cfg.get("eps", 1e-5)}
    assert {getattr(m, "momentum", None) for m in norms} <= {norm_cfg.get("momentum", 0.1), None}
    assert model.stem.conv.weight.requires_grad


def test_frozen_bn_has_no_parameters():
    model = RegNetBackbone("regnetx_200mf", norm_cfg={"type": "FrozenBN"})
    assert {name.split(".")[-2] for name, _ in model.named_parameters()} <= {"conv", "a", "b", "c", "proj"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out_indices": (0, 4)}, ["out_indices", "4", "0 to 3"]),
        ({"out_indices": ()}, ["out_indices", "0 to 3"]),
        ({"out_indices": ("s1",)}, ["out_indices", "s1"]),
        ({"frozen_stages": 5}, ["frozen_stages=5", "4"]),
        ({"norm_cfg": {"type": "NoNorm"}}, ["NoNorm", "FrozenBN"]),
        ({"norm_cfg": {"type": "BN", "num_groups": 3}}, ["BN", "num_groups"]),
        ({"norm_cfg": {"type": "BN", "groups": 3}}, ["groups", "remove"]),
        ({"output_stride": 4}, ["output_stride=4", "8"]),
        ({"drop_path_rate": 1.0}, ["drop_path", "1.0"]),
    ],
    ids=str,
)
def test_impossible_options(options, words):
    with pytest.raises(UserError) as error:
        RegNetBackbone("regnetx_200mf", **options)
    assert all(word in str(error.value) for word in words), error.value
    assert "\n" not in str(error.value)


def test_small_image_is_refused():
    with pytest.raises(UserError, match="31x64 pixels, too small"):
        RegNetBackbone("regnetx_200mf")(torch.rand(1, 3, 31, 64))


def test_dilation():
    x = torch.rand(1, 3, 64, 64)
    assert [f.shape[-1] for f in RegNetBackbone("regnetx_200mf", output_stride=8)(x)] == [16, 8, 8, 8]
