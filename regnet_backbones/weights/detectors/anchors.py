"""The order of the anchors inside a cell, along which RPN's and RetinaNet's outputs are laid out.

Detectron2 goes through the sizes and, within each, through the ratios; MMDetection the other way round. Within an
anchor both put the classes, or the four deltas, next to each other.
"""

from __future__ import annotations

from torch import Tensor

from ...errors import UserError


def by_ratio(tensor: Tensor, anchors: int, ratios: int) -> Tensor:
    """From Detectron2's order to MMDetection's, along the first axis.

    Raises:
        UserError: the anchors are not ``ratios`` times a number of sizes.
    """
    _check(anchors, ratios)
    return _swapped(tensor, anchors // ratios, ratios)


def by_size(tensor: Tensor, anchors: int, ratios: int) -> Tensor:
    """From MMDetection's order to Detectron2's.

    Raises:
        UserError: as :func:`by_ratio`.
    """
    _check(anchors, ratios)
    return _swapped(tensor, ratios, anchors // ratios)


def _swapped(tensor: Tensor, outer: int, inner: int) -> Tensor:
    if 1 in (outer, inner):
        return tensor
    grid = tensor.reshape(outer, inner, -1, *tensor.shape[1:])
    return grid.transpose(0, 1).reshape(tensor.shape)


def _check(anchors: int, ratios: int) -> None:
    if anchors % ratios:
        raise UserError(
            f"the detector has {anchors} anchors per cell, which cannot be {ratios} ratios in several sizes; state"
            " the number of ratios with --setting anchor_ratios=..."
        )
