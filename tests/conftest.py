"""What several test files need: where the real images are, and random weights that exercise every term."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import nn

if "CI" in os.environ:  # elsewhere every run tries other examples
    settings.register_profile("ci", derandomize=True)
    settings.load_profile("ci")

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


def _shared(path: str) -> Path:
    folder = SHARED / path
    if not folder.exists():
        pytest.skip(f"needs ../shared/{path} beside the project, which is not there")
    return folder


@pytest.fixture(scope="session")
def coco_mini() -> Path:
    """Real COCO images: 64 for training, 32 for validation."""
    return _shared("data/coco_mini")


@pytest.fixture(scope="session")
def ade_mini() -> Path:
    """Three real ADE20K images."""
    return _shared("data/ade_mini")


@pytest.fixture(scope="session")
def pycls_facts() -> dict[str, dict]:
    """Published complexity of the 24 ImageNet baselines."""
    facts = json.loads(_shared("facts/pycls_regnet.json").read_text())
    return {name: fact for name, fact in facts.items() if not name.startswith("_")}


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and affines away from 0 and 1, so that a mistake in any of them shows."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if getattr(module, "running_mean", None) is None:
            continue
        for name, low, high in (("weight", 0.5, 1.0), ("bias", -0.2, 0.2), ("running_mean", -0.2, 0.2)):
            values = torch.empty(module.running_mean.shape).uniform_(low, high, generator=generator)
            getattr(module, name).data.copy_(values)
        module.running_var.data.uniform_(0.5, 1.5, generator=generator)
    return model


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm, the measure of equality in all parity tests."""
    assert a.shape == b.shape
    return ((a - b).norm() / b.norm().clamp_min(1e-30)).item()
