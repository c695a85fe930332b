"""Whether a config feeds the network the pixels that its weights were trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..errors import UserError
from .meta import Meta

logger = logging.getLogger(__name__)
TOLERANCE = 0.51  # of 255: publishers round their statistics, pycls' FFCV loader to whole numbers


def check_pixels(known: Meta | None, fed: Meta, *, remedy: Callable[[Meta], str], strict: bool, switch: str) -> None:
    """Compare what weights expect with what a config feeds; log what is unknown or was assumed.

    Args:
        known: of the weights; None when their file says nothing.
        fed: channel order and statistics as the config feeds them.
        remedy: the right values in the framework's own terms.
        strict: raise on a contradiction; otherwise log it as a warning.
        switch: the setting that makes ``strict`` false.

    Raises:
        UserError: the two contradict each other.
    """
    if not fed.channel_order:  # not an image of three colours: nothing is published about those
        return
    if known is None or not known.channel_order:
        logger.info(
            "the weights do not say which pixels they expect; assumed: what the config feeds (%s)", describe(fed)
        )
        return
    for note in known.notes:
        logger.info("%s: %s", known.source or "the weights", note)
    if agree(known, fed):
        return
    sentence = (
        f"the weights {known.name or known.source or ''} expect {describe(known)}, but the config feeds"
        f" {describe(fed)}: {remedy(known)}, or go on all the same with {switch}"
    ).replace("weights  ", "weights ")
    if strict:
        raise UserError(sentence)
    logger.warning(sentence)


def agree(known: Meta, fed: Meta) -> bool:
    """Equal channel order, and statistics equal up to rounding where both state them."""
    pairs = [*zip(known.pixel_mean, fed.pixel_mean, strict=False), *zip(known.pixel_std, fed.pixel_std, strict=False)]
    return known.channel_order == fed.channel_order and all(abs(a - b) < TOLERANCE for a, b in pairs)


def describe(meta: Meta) -> str:
    """Channel order, mean and std in a few words."""
    return f"{meta.channel_order} pixels with mean {_list(meta.pixel_mean)} and std {_list(meta.pixel_std)}"


def _list(values: tuple[float, ...]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"
