"""Published and own weights: reading any format, converting between them, and loading them strictly."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .download import resolvable, resolve

if TYPE_CHECKING:
    from torch import Tensor

    from .meta import Meta


__all__ = ["load_backbone", "resolvable", "resolve"]


def load_backbone(
    path: str | os.PathLike,
    expected_arch: Any = None,
    *,
    allow_partial: bool = False,
    unsafe: bool = False,
    prefix: str = "",
) -> tuple[dict[str, Tensor], Meta]:
    """A RegNet trunk out of a checkpoint in any known format.

    Args:
        path: the file.
        expected_arch: what the trunk must be, in any form that ``get_arch`` takes; None accepts any.
        allow_partial: do not insist that the file fills the whole architecture (needs ``expected_arch``).
        unsafe: unpickle whatever the file asks for, which can run any code it brings.
        prefix: which network, if the file holds several.

    Returns:
        The trunk's tensors by our names, without a classifier, and the metadata: the file's own, or what is
        usual for its format, which a note then says.

    Raises:
        UserError: no RegNet, another architecture, incomplete, damaged or unsafe.
    """
    from .architecture import HEAD  # torch is imported only when weights are
    from .file import read
    from .recognize import recognize

    found = recognize(read(path, unsafe=unsafe), arch=expected_arch, allow_partial=allow_partial, prefix=prefix)
    return {name: tensor for name, tensor in found.state.items() if not name.startswith(HEAD)}, found.meta
