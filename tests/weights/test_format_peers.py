"""Every format against the peer's own model: the same features after conversion, the same bits after going back."""

from __future__ import annotations

import pytest
import torch
from conftest import randomize, relative
from format_peers import PEERS
from torch import Tensor, nn

from regnet_backbones import Arch, build, convert, get_arch
from regnet_backbones.arch import identify
from regnet_backbones.weights import load_backbone

SIZES = ("regnetx_400mf", "regnetx_3.2gf", "regnety_400mf", "regnety_4.0gf")
X_ONLY = ("mmdet", "mmpretrain")
SECOND_NAMES = ("timm-features", "transformers-trunk", "vissl-sharded")  # of the same modules: small sizes do
CASES = [
    (peer, size)
    for peer in PEERS
    for size in SIZES
    if ("x_" in size or peer not in X_ONLY) and ("400mf" in size or peer not in SECOND_NAMES)
]
CASES += [("timm-features", "regnetz_500mf"), ("timm-features", "regnetz_4.0gf"), ("timm", "regnetz_4.0gf")]
FLOAT32 = "regnetx_400mf"  # rounding differs with the size, the names do not


def expected(peer: str, size: str) -> Arch:
    """torchvision rounds the widths of these sizes in its own way."""
    return get_arch(f"{size}_tv") if peer == "torchvision" else get_arch(size)


def make(peer: str, size: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = randomize(PEERS[peer]().make(get_arch(size)), seed)
    model.eval()  # MMDetection's returns nothing
    for name, counter in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            counter.fill_(seed + len(name))
    return model


@torch.no_grad()
def compare(ours: nn.Module, theirs: list[Tensor], x: Tensor, tolerance: float) -> None:
    found = ours(x)
    assert len(found) == len(theirs) == len(ours.arch.channels)
    for (name, feature), their in zip(found.items(), theirs, strict=True):
        assert relative(feature, their) < tolerance, name


@pytest.mark.parametrize(("peer", "size"), CASES)
def test_there_and_back(peer, size, tmp_path):
    package = PEERS[peer]()
    model = make(peer, size, seed=1)
    report = convert(package.save(model, tmp_path), tmp_path / "ours.pth", to="ours")
    assert report.source_format == package.format
    assert report.arch.same_network(identify(expected(peer, size)))

    ours = build(report.arch, out_features=tuple(report.arch.channels)).eval()
    ours.load_state_dict(load_backbone(report.dst, expected(peer, size))[0])
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        if size == FLOAT32:
            compare(ours, package.features(model, x), x, 1e-3)
        double = x.double()
        compare(ours.double(), package.features(model.double(), double), double, 1e-9)
    model.float()

    back = tmp_path / f"back{package.suffix}"
    convert(report.dst, back, to=package.format)
    fresh = make(peer, size, seed=2)
    package.load(fresh, back)
    for name, tensor in model.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor), name


def test_no_case_is_lost():
    assert {PEERS[peer]().format for peer, _ in CASES} == {
        "pycls", "torchvision", "timm", "detectron2", "mmdet", "mmpretrain", "transformers", "classyvision", "vissl",
    }  # fmt: skip
