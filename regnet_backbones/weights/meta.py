"""What a weight file must say besides its tensors: which network, and which pixels it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace

from ..errors import UserError

CHANNEL_ORDERS = ("RGB", "BGR")
IMAGENET_MEAN = (123.675, 116.28, 103.53)  # in RGB order, on the 0..255 scale
IMAGENET_STD = (58.395, 57.12, 57.375)
SETTING_TYPES = (bool, int, float, str)


@dataclass(frozen=True)
class Meta:
    """Travels with the tensors from file to file; every field may be unknown (empty).

    Attributes:
        arch: canonical name (``RegNetY-4.0GF``), or the parameters as text.
        format: the format the weights were published in, before any conversion (``pycls``, ``timm``, ...).
        channel_order: ``RGB`` or ``BGR``: the order of the stem's input channels.
        pixel_mean: mean per channel on the 0..255 scale, in ``channel_order``'s order.
        pixel_std: standard deviation likewise.
        source: address or file name that the weights came from.
        sha256: of that file, in hexadecimal.
        name: name in the catalogue of published weights.
        notes: sentences for a person: what was assumed, what was changed.
        settings: options of a whole detector that its tensors cannot tell, by name.

    Raises:
        UserError: a value of the wrong kind; the sentence names the field.
    """

    arch: str = ""
    format: str = ""
    channel_order: str = ""
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()
    source: str = ""
    sha256: str = ""
    name: str = ""
    notes: list[str] = field(default_factory=list)
    settings: dict[str, bool | int | float | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("arch", "format", "channel_order", "source", "sha256", "name"):
            _rule(name, getattr(self, name), isinstance(getattr(self, name), str), "text")
        _rule("channel_order", self.channel_order, self.channel_order in ("", *CHANNEL_ORDERS), "RGB or BGR")
        for name in ("pixel_mean", "pixel_std"):
            object.__setattr__(self, name, _three_numbers(name, getattr(self, name)))
        _rule("pixel_std", self.pixel_std, all(value > 0 for value in self.pixel_std), "above 0")
        _rule("sha256", self.sha256, _is_sha256(self.sha256), "64 hexadecimal digits")
        _rule("notes", self.notes, _is_list(self.notes, str), "a list of sentences")
        object.__setattr__(self, "notes", list(self.notes))
        fits = isinstance(self.settings, Mapping) and _is_list(list(self.settings), str)
        _rule("settings", self.settings, fits, "a mapping from names to plain values")
        _rule("settings", self.settings, _is_list(list(self.settings.values()), SETTING_TYPES), "plain values")

    def to_dict(self) -> dict[str, object]:
        """Plain values only, so that JSON and a weights-only pickle can hold it; empty fields are left out."""
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in plain.items() if value not in ("", [], {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Meta:
        """The inverse of :meth:`to_dict`; fields of later versions are ignored.

        Raises:
            UserError: not a mapping, or a value of the wrong kind.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"the metadata of a checkpoint is a mapping, not {type(values).__name__}; convert it again")
        known = [f.name for f in fields(cls)]
        return cls(**{name: value for name, value in values.items() if name in known})  # type: ignore[arg-type]

    def flipped(self) -> Meta:
        """The same statistics for the other channel order.

        Raises:
            UserError: the channel order is unknown.
        """
        if not self.channel_order:
            raise UserError("the channel order of these weights is unknown, so it cannot be reversed; state it first")
        other = "BGR" if self.channel_order == "RGB" else "RGB"
        return replace(
            self, channel_order=other, pixel_mean=self.pixel_mean[::-1], pixel_std=self.pixel_std[::-1]
        )  # fmt: skip


def imagenet_statistics(channel_order: str) -> dict[str, object]:
    """``channel_order``, ``pixel_mean`` and ``pixel_std`` of ImageNet in that order, as keywords for a Meta."""
    step = 1 if channel_order == "RGB" else -1
    return {
        "channel_order": channel_order,
        "pixel_mean": IMAGENET_MEAN[::step],
        "pixel_std": IMAGENET_STD[::step],
    }


def _three_numbers(name: str, values: object) -> tuple[float, ...]:
    fits = isinstance(values, Sequence) and not isinstance(values, str) and len(values) in (0, 3)
    fits = fits and all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    _rule(name, values, fits, "three finite numbers on the 0..255 scale")
    return tuple(float(value) for value in values)  # type: ignore[union-attr]


def _is_sha256(text: str) -> bool:
    return not text or (len(text) == 64 and set(text.lower()) <= set("0123456789abcdef"))


def _is_list(values: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(values, (list, tuple)) and all(isinstance(value, kinds) for value in values)


def _rule(name: str, value: object, holds: bool, rule: str) -> None:
    if not holds:
        raise UserError(f"the metadata field {name}={value!r} of a checkpoint is not {rule}; correct or remove it")
