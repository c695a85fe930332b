"""RegNet backbones for Detectron2, MMDetection and MMSegmentation."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Where the public names live. Looked up on first use, so that `import regnet_backbones` and the command line
# answer without importing torch.
_PUBLIC = {
    "Arch": "arch",
    "archs": "arch",
    "get_arch": "arch",
    "DesignPoint": "design_space",
    "UserError": "errors",
    "convert": "weights.conversion",
    "RegNet": "trunk",
    "RegNetClassifier": "trunk",
    "build": "trunk",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)
