"""Our features are those of every other RegNet, on random weights with randomized batch-norm statistics.

Detectron2 and MMDetection have their own files under tests/adapters; gradients are compared with Detectron2's there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from conftest import SHARED, randomize, relative
from torch import Tensor, nn

from regnet_backbones import build
from regnet_backbones.weights import load_backbone

SIZES = [(97, 131), (224, 224)]
FEATURES = ("stem", "s1", "s2", "s3", "s4")


def timm_model(name: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    return timm.create_model(name, features_only=True, out_indices=(0, 1, 2, 3, 4))


def torchvision_model(name: str) -> nn.Module:
    return getattr(pytest.importorskip("torchvision").models, name)()


def pycls_model(name: str) -> nn.Module:
    """By pycls' own generator of widths, from the parameters it published, not from our table."""
    regnet = pytest.importorskip("pycls.models.regnet")
    facts = SHARED / "facts/pycls_regnet.json"
    if not facts.exists():
        pytest.skip("needs ../shared/facts beside the project")
    for key, value in json.loads(facts.read_text())[name]["regnet"].items():
        setattr(regnet.cfg.REGNET, key, value)
    regnet.cfg.REGNET.SE_ON = "RegNetY" in name
    return regnet.RegNet()


def timm_features(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    return iter(model(x))


def torchvision_features(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    for part in (model.stem, *model.trunk_output):
        x = part(x)
        yield x


def pycls_features(model: nn.Module, x: Tensor) -> Iterator[Tensor]:
    for name in FEATURES:
        x = getattr(model, name)(x)
        yield x


PEERS = {
    "timm": (timm_model, timm_features),
    "torchvision": (torchvision_model, torchvision_features),
    "pycls": (pycls_model, pycls_features),
}
TIMM = ("x_004", "x_008", "x_016", "y_004", "y_008", "y_016", "z_005")
PYCLS = ("X-200MF", "X-400MF", "X-800MF", "Y-200MF", "Y-400MF", "Y-800MF")
CASES = [
    *(("timm", (f"regnet{code}",), f"regnet{code}") for code in TIMM),
    ("timm", ("regnetx_004_tv",), "regnetx_400mf_tv"),
    ("torchvision", ("regnet_x_400mf",), "regnetx_400mf_tv"),
    ("torchvision", ("regnet_x_800mf",), "regnetx_800mf"),
    ("torchvision", ("regnet_x_1_6gf",), "regnetx_1.6gf"),
    ("torchvision", ("regnet_y_400mf",), "regnety_400mf"),
    ("torchvision", ("regnet_y_800mf",), "regnety_800mf_tv"),
    ("torchvision", ("regnet_y_1_6gf",), "regnety_1.6gf"),
    *(("pycls", (f"RegNet{size}",), f"RegNet{size}") for size in PYCLS),
]


@pytest.mark.parametrize(
    ("peer", "arguments", "arch"), CASES, ids=lambda value: "-".join(value) if isinstance(value, tuple) else value
)
def test_features(peer, arguments, arch, tmp_path):
    make, features = PEERS[peer]
    model = randomize(make(*arguments)).eval()
    path = tmp_path / "peer.pth"
    torch.save(model.state_dict(), path)
    ours = build(arch, out_features=FEATURES).eval()
    ours.load_state_dict(load_backbone(path, arch)[0])
    compare: Callable = partial(_compare, ours, model, features)
    compare(SIZES[0], torch.float32, 1e-3)
    ours.double(), model.double()
    for size in SIZES:
        compare(size, torch.float64, 1e-9)


@torch.no_grad()
def _compare(ours: nn.Module, model: nn.Module, features: Callable, size, dtype, tolerance) -> None:
    x = torch.randn(1, 3, *size, dtype=dtype, generator=torch.Generator().manual_seed(3))
    found = ours(x)
    for name, theirs in zip(FEATURES, features(model, x), strict=True):
        assert relative(found[name], theirs) < tolerance, (name, size, dtype)
