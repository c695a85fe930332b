"""Data flows one way: the core knows neither frameworks nor adapters, and the space needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import regnet_backbones

PACKAGE = Path(regnet_backbones.__file__).parent
FRAMEWORKS = {"detectron2", "mmengine", "mmcv", "mmdet", "mmseg", "mmpretrain", "timm", "torchvision", "fvcore"}
CORE = ("design_space", "arch", "complexity", "errors", "blocks", "norms", "trunk")


def imported(path: Path) -> set[str]:
    """Top-level packages and, for our own, dotted names below the package, at any depth of the file."""
    names: set[str] = set()
    package = ("regnet_backbones", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


def test_the_walk_sees_imports():
    assert "regnet_backbones.arch" in imported(PACKAGE / "trunk.py")
    assert "torch" in imported(PACKAGE / "trunk.py")


@pytest.mark.parametrize("module", CORE)
def test_core_imports_no_framework_and_nothing_above_it(module):
    for name in imported(PACKAGE / f"{module}.py"):
        assert name.split(".")[0] not in FRAMEWORKS
        assert not name.startswith(("regnet_backbones.adapters", "regnet_backbones.cli", "regnet_backbones.data"))


def test_only_adapters_import_frameworks():
    for path in PACKAGE.rglob("*.py"):
        frameworks = {name.split(".")[0] for name in imported(path)} & (FRAMEWORKS - {"torchvision"})
        assert not frameworks or "adapters" in path.parts, path


@pytest.mark.parametrize("module", ["regnet_backbones.complexity", "regnet_backbones.cli.archs"])
def test_the_design_space_needs_no_torch(module):
    code = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
