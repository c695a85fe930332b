"""Vector geometry of the embedded data set: outlines of the classes, occlusion, polygons without holes.

Coordinates are COCO's: (x, y) in pixels from the top left, pixel (i, j) covers [i, i + 1] x [j, j + 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from shapely import affinity
from shapely.geometry import Point, Polygon, box
from shapely.geometry.base import BaseGeometry
from shapely.ops import unary_union

EMPTY_EVERY, CROWD_EVERY = 40, 8
MIN_VISIBLE, MIN_PIXELS, SLIVER = 0.5, 60.0, 2.0
MEDIAN_SIDE, SPREAD_SIDE, SIDE_RANGE = 0.27, 0.55, (0.1, 0.9)
MAX_ROTATION = 30.0
ATTEMPTS = 20


@dataclass(frozen=True)
class Item:
    """One annotated thing: its class, the outlines to paint, and what the things in front leave to see."""

    label: int
    outlines: tuple[Polygon, ...]
    visible: BaseGeometry
    crowd: bool = False


def _star() -> Polygon:
    angles = np.arange(10) * math.pi / 5 - math.pi / 2
    radii = np.where(np.arange(10) % 2, 0.42, 1.0)
    return Polygon(np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1))


def _heart() -> Polygon:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return Polygon(np.stack([16 * np.sin(t) ** 3, -y], axis=1))


def _unit(shape: BaseGeometry) -> BaseGeometry:
    x0, y0, x1, y1 = shape.bounds
    centred = affinity.translate(shape, -(x0 + x1) / 2, -(y0 + y1) / 2)
    return affinity.scale(centred, 1 / max(x1 - x0, y1 - y0), 1 / max(x1 - x0, y1 - y0), origin=(0, 0))


_DISC = Point(0, 0).buffer(1, quad_segs=12)

# Each fits a unit box around the origin.
OUTLINES: dict[str, BaseGeometry] = {
    name: _unit(shape)
    for name, shape in {
        "circle": _DISC,
        "square": box(-1, -1, 1, 1),
        "triangle": Polygon([(-1, 0.87), (0, -0.87), (1, 0.87)]),
        "star": _star(),
        "cross": unary_union([box(-1, -0.34, 1, 0.34), box(-0.34, -1, 0.34, 1)]),
        "ring": _DISC.difference(affinity.scale(_DISC, 0.58, 0.58)),
        "crescent": _DISC.difference(affinity.translate(affinity.scale(_DISC, 0.85, 0.85), 0.5, 0)),
        "heart": _heart(),
    }.items()
}
THING_CLASSES = tuple(OUTLINES)


def pieces(geometry: BaseGeometry) -> list[Polygon]:
    """The polygons of any geometry, without lines, points and slivers."""
    parts = getattr(geometry, "geoms", [geometry])
    return [part for part in parts if isinstance(part, Polygon) and part.area >= SLIVER]


def without_holes(polygon: Polygon) -> list[Polygon]:
    """Cuts a polygon, through its holes, into polygons without any: a COCO polygon cannot hold one."""
    if not polygon.interiors:
        return [polygon]
    x0, y0, x1, y1 = polygon.bounds
    hole = polygon.interiors[0].bounds
    cut = (hole[0] + hole[2]) / 2
    halves = (polygon.intersection(box(x0, y0, cut, y1)), polygon.intersection(box(cut, y0, x1, y1)))
    return [whole for half in halves for part in pieces(half) for whole in without_holes(part)]


def _pose(rng: np.random.Generator, label: int, side: float, centre: tuple[float, float]) -> Polygon:
    stretch = math.exp(rng.normal(0, 0.08))
    shape = affinity.scale(OUTLINES[THING_CLASSES[label]], side * stretch, side / stretch, origin=(0, 0))
    shape = affinity.rotate(shape, rng.uniform(-MAX_ROTATION, MAX_ROTATION), origin=(0, 0))
    return affinity.translate(shape, *centre)


def _visible(shape: BaseGeometry, frame: Polygon, front: BaseGeometry) -> BaseGeometry | None:
    """What is seen of a shape within the frame and behind `front`; None if too little to know it by."""
    seen = unary_union(pieces(shape.intersection(frame).difference(front)))
    return seen if seen.area >= max(MIN_PIXELS, MIN_VISIBLE * shape.area) else None


def _thing(rng: np.random.Generator, label: int, frame: Polygon, front: BaseGeometry) -> Item | None:
    _, _, width, height = frame.bounds
    side = float(np.clip(math.exp(rng.normal(math.log(MEDIAN_SIDE), SPREAD_SIDE)), *SIDE_RANGE))
    for _ in range(ATTEMPTS):
        centre = (rng.uniform(0.08, 0.92) * width, rng.uniform(0.08, 0.92) * height)
        shape = _pose(rng, label, side * math.sqrt(width * height), centre)
        seen = _visible(shape, frame, front)
        if seen is not None:
            return Item(label, (shape,), seen)
    return None


def _crowd(rng: np.random.Generator, label: int, frame: Polygon, front: BaseGeometry) -> Item | None:
    """Many tiny shapes of one class close together."""
    _, _, width, height = frame.bounds
    unit = math.sqrt(width * height)
    for _ in range(ATTEMPTS):
        x, y = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        members = []
        for dx, dy in rng.uniform(-0.17, 0.17, (int(rng.integers(14, 28)), 2)) * unit:
            members.append(_pose(rng, label, rng.uniform(0.035, 0.06) * unit, (x + dx, y + dy)))
        seen = _visible(unary_union(members), frame, front)
        if seen is not None:
            return Item(label, tuple(members), seen, crowd=True)
    return None


def arrange(rng: np.random.Generator, width: int, height: int, index: int) -> list[Item]:
    """The things of image `index`, front to back: each is placed behind those before it.

    The first has class `index` modulo the number of classes, so that small sets show every class; every
    40th image has no thing and every 8th a crowd (as far as one finds room).
    """
    if index % EMPTY_EVERY == EMPTY_EVERY - 1:
        return []
    frame = box(0, 0, width, height)
    labels = [index % len(THING_CLASSES), *rng.integers(0, len(THING_CLASSES), int(rng.integers(1, 6)))]
    makers = [_thing] * len(labels)
    if index % CROWD_EVERY == 3:
        labels.append(rng.integers(0, len(THING_CLASSES)))
        makers.append(_crowd)
    items: list[Item] = []
    front: BaseGeometry = Polygon()
    for make_item, label in zip(makers, labels, strict=True):
        item = make_item(rng, int(label), frame, front)
        if item is not None:
            items.append(item)
            front = unary_union([front, *item.outlines])
    return items
