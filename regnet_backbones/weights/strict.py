"""The comparison behind every load: which tensors a checkpoint fills, leaves empty, or brings without a place.

Both frameworks only warn about what does not fit. The trunk calls this from its own loading instead, so it
holds for ``load_state_dict`` of whatever model the trunk sits in. Works on names and shapes, not on tensors.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ..errors import UserError

logger = logging.getLogger(__name__)
Shape = tuple[int, ...]
COUNTER = "num_batches_tracked"  # Detectron2 drops batch norm's counter when it saves; nothing computes with it


@dataclass
class Fit:
    """How a checkpoint fits: names only in the module, only in the checkpoint, in both with unequal shapes."""

    missing: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    reshaped: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    expected: int = 0

    @property
    def complete(self) -> bool:
        return not (self.missing or self.misplaced or self.reshaped)

    def sentence(self, what: str) -> str:
        """Why the checkpoint does not fit ``what``."""
        parts = []
        if self.missing:
            parts.append(f"{len(self.missing)} of its {self.expected} tensors are missing ({_some(self.missing)})")
        if self.reshaped:
            shapes = [f"{name} is {theirs}, not {ours}" for name, (theirs, ours) in self.reshaped.items()]
            parts.append(f"{len(self.reshaped)} have another shape ({_some(shapes)})")
        if self.misplaced:
            parts.append(f"{len(self.misplaced)} tensors have no place in it ({_some(self.misplaced)})")
        return f"the checkpoint does not fit {what}: {'; '.join(parts)}"


def compare(ours: Mapping[str, Shape], theirs: Mapping[str, Shape]) -> Fit:
    """Compare both ways; batch norm's counter may be missing or superfluous."""
    fit = Fit(expected=len(ours))
    fit.missing = [name for name in ours if name not in theirs and not name.endswith(COUNTER)]
    fit.misplaced = [name for name in theirs if name not in ours and not name.endswith(COUNTER)]
    fit.reshaped = {
        name: (tuple(theirs[name]), tuple(ours[name]))
        for name in ours
        if name in theirs and tuple(theirs[name]) != tuple(ours[name])
    }
    return fit


def require_fit(fit: Fit, what: str, *, allow_partial: bool, switch: str = "allow_partial=True") -> None:
    """Raise unless the checkpoint fits or a partial one is allowed, in which case the log tells what is wrong."""
    if fit.complete:
        return
    if not allow_partial:
        raise UserError(f"{fit.sentence(what)}; take the checkpoint of this architecture, or accept it with {switch}")
    logger.warning("%s; loaded all the same, as %s allows", fit.sentence(what), switch)


def left_out(names: Collection[str], parts: Collection[str]) -> list[str]:
    """Those of ``names`` that belong to ``parts`` of a RegNet which this trunk does not have, by design."""
    return [name for name in names if name.split(".")[0] in parts]


def _some(items: list[str], limit: int = 3) -> str:
    return ", ".join(items[:limit]) + (f" and {len(items) - limit} more" if len(items) > limit else "")
