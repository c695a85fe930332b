"""Pixels of the embedded data set: textured things over clutter over two or three kinds of ground.

Colours and textures are drawn without looking at the class, so that only the outline tells it. Every picture
is float32 (H, W, 3) in 0 .. 255 until the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from shapely.geometry import LineString, Polygon

from regnet_backbones.data.shapes import Item

Rng = np.random.Generator
SUPERSAMPLING = 4
MIN_CONTRAST = 100.0


def _smooth(rng: Rng, height: int, width: int, cell_h: float, cell_w: float) -> np.ndarray:
    """Smooth noise (height, width) in 0 .. 1 whose bumps are about (cell_h, cell_w) pixels."""
    cells = max(2, math.ceil(height / cell_h)), max(2, math.ceil(width / cell_w))
    coarse = Image.fromarray(rng.random(cells, dtype=np.float32))
    return np.clip(np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)), 0, 1)


def _waves(rng: Rng, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Two perpendicular sine waves (height, width) at a random angle, period and phase."""
    angle, period = rng.uniform(0, math.pi), rng.uniform(5, 14)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    frequency, phase_u, phase_v = 2 * math.pi / period, *rng.uniform(0, 2 * math.pi, 2).tolist()
    return np.sin(u * frequency + phase_u), np.sin(v * frequency + phase_v)


def _ramp(rng: Rng, height: int, width: int) -> np.ndarray:
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    return np.clip((x * math.cos(angle) + y * math.sin(angle)) / 2 + 0.5, 0, 1)


def _stripes(rng: Rng, height: int, width: int) -> np.ndarray:
    return (_waves(rng, height, width)[0] > 0).astype(np.float32)


def _checks(rng: Rng, height: int, width: int) -> np.ndarray:
    u, v = _waves(rng, height, width)
    return (u * v > 0).astype(np.float32)


def _dots(rng: Rng, height: int, width: int) -> np.ndarray:
    u, v = _waves(rng, height, width)
    return (u + v > 0.8).astype(np.float32)


def _mottle(rng: Rng, height: int, width: int) -> np.ndarray:
    return _smooth(rng, height, width, 3, 3)


TEXTURES: tuple[Callable[[Rng, int, int], np.ndarray], ...] = (_ramp, _stripes, _checks, _dots, _mottle)


def _grass(rng: Rng, height: int, width: int) -> np.ndarray:
    return 0.65 * _smooth(rng, height, width, 5, 1.3) + 0.35 * _smooth(rng, height, width, 16, 16)


def _bricks(rng: Rng, height: int, width: int) -> np.ndarray:
    """Courses of bricks, every second one shifted by half a brick, with a light joint of 1 or 2 pixels."""
    tall = int(rng.integers(7, 13))
    long, joint = int(tall * rng.uniform(1.8, 2.4)), int(rng.integers(1, 3))
    y, x = np.mgrid[:height, :width]
    course = y // tall
    x = x + (course % 2) * (long // 2)
    shades = rng.uniform(0, 0.45, (height // tall + 1, (width + long) // long + 1)).astype(np.float32)
    return np.where((y % tall < joint) | (x % long < joint), np.float32(1), shades[course, x // long])


def _sky(rng: Rng, height: int, width: int) -> np.ndarray:
    down = np.linspace(0, 0.6, height, dtype=np.float32)[:, None]
    return down + 0.4 * _smooth(rng, height, width, height / 3, width / 2)


STUFF: dict[str, Callable[[Rng, int, int], np.ndarray]] = {"grass": _grass, "bricks": _bricks, "sky": _sky}
STUFF_CLASSES = tuple(STUFF)


def _colours(rng: Rng, distance: float) -> np.ndarray:
    """Two colours (2, 3), `distance` apart before they are clipped."""
    first, way = rng.uniform(20, 235, 3), rng.normal(size=3)
    return np.clip([first, first + way * distance / np.linalg.norm(way)], 0, 255).astype(np.float32)


def _contrasting(rng: Rng, backdrop: np.ndarray) -> np.ndarray:
    """Two colours (2, 3) whose mean stands off the mean colour of what they will be painted on."""
    while True:
        colours = _colours(rng, rng.uniform(30, 90))
        if np.linalg.norm(colours.mean(0) - backdrop) >= MIN_CONTRAST:
            return colours


def _mix(field: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return colours[0] + field[..., None] * (colours[1] - colours[0])


def coverage(polygon: Polygon, width: int, height: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """How much of each pixel a polygon covers, as (window of the image, float32 in 0 .. 1)."""
    x0, y0 = (max(0, math.floor(v)) for v in polygon.bounds[:2])
    x1, y1 = min(width, math.ceil(polygon.bounds[2])), min(height, math.ceil(polygon.bounds[3]))
    window = (slice(y0, max(y0, y1)), slice(x0, max(x0, x1)))
    if x1 <= x0 or y1 <= y0:
        return window, np.zeros((max(0, y1 - y0), max(0, x1 - x0)), np.float32)
    fine = Image.new("L", ((x1 - x0) * SUPERSAMPLING, (y1 - y0) * SUPERSAMPLING))
    draw = ImageDraw.Draw(fine)
    for ring, value in [(polygon.exterior, 255), *((hole, 0) for hole in polygon.interiors)]:
        points = (np.asarray(ring.coords) - (x0, y0)) * SUPERSAMPLING - 0.5
        draw.polygon([tuple(point) for point in points], fill=value)
    return window, np.asarray(fine.reduce(SUPERSAMPLING), np.float32) / 255


def _paint(rng: Rng, image: np.ndarray, polygon: Polygon) -> tuple[tuple[slice, slice], np.ndarray]:
    """Paints a textured polygon into the image; returns its window and the pixels it covers there."""
    window, alpha = coverage(polygon, image.shape[1], image.shape[0])
    if alpha.size:
        texture = TEXTURES[rng.integers(len(TEXTURES))](rng, *alpha.shape)
        fill = _mix(texture, _contrasting(rng, image[window].mean((0, 1))))
        image[window] += alpha[..., None] * (fill - image[window])
    return window, alpha >= 0.5


def ground(rng: Rng, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """One to three bands of different stuff with wavy borders: the picture, and labels (H, W) 1 .. 3."""
    classes = rng.permutation(len(STUFF_CLASSES))[: rng.integers(1, 4)]
    angle = rng.uniform(-0.5, 0.5) + rng.choice([0, math.pi / 2], p=[0.25, 0.75])
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    along = along + rng.uniform(0.03, 0.12) * np.sin(across * rng.uniform(2, 7) + rng.uniform(0, 6))
    band = np.searchsorted(np.sort(rng.uniform(-0.6, 0.6, len(classes) - 1)), along)
    image = np.zeros((height, width, 3), np.float32)
    for number, label in enumerate(classes):
        field = STUFF[STUFF_CLASSES[label]](rng, height, width)
        inside = band == number
        image[inside] = _mix(field[inside], _colours(rng, rng.uniform(30, 80)))
    return image, (classes[band] + 1).astype(np.uint8)


def _blob(rng: Rng, unit: float, centre: np.ndarray) -> Polygon:
    """An irregular outline that belongs to no class."""
    t = np.linspace(0, 2 * math.pi, 36, endpoint=False)
    radius = 1 + sum(rng.uniform(0, 0.45) * np.sin(k * t + rng.uniform(0, 6)) for k in (2, 3, 4, 5))
    squeeze = rng.uniform(0.4, 1, 2)
    points = np.stack([np.cos(t), np.sin(t)], axis=1) * np.maximum(radius, 0.2)[:, None] * squeeze
    return Polygon(centre + points * unit * rng.uniform(0.03, 0.1))


def clutter(rng: Rng, image: np.ndarray, stuff: np.ndarray) -> None:
    """Paints patches, which belong to no class, and thin lines, which leave the stuff its label, in place."""
    height, width = stuff.shape
    unit = math.sqrt(width * height)
    for _ in range(rng.integers(2, 6)):
        window, covered = _paint(rng, image, _blob(rng, unit, rng.random(2) * (width, height)))
        stuff[window][covered] = 0
    for _ in range(rng.integers(2, 6)):
        start, heading = rng.random(2) * (width, height), rng.normal(size=3)
        ends = start + np.array([[0, 0], heading[:2], heading[:2] + heading[1:]]) * unit * 0.2
        _paint(rng, image, LineString(ends).buffer(rng.uniform(0.5, 1.3), quad_segs=1))


def draw(rng: Rng, width: int, height: int, items: list[Item]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a scene.

    Returns the image uint8 (H, W, 3); for each pixel the number of its item counted from 1, 0 = none, uint8
    (H, W); and the label of the stuff behind, counted from 1, 0 = none, uint8 (H, W).
    """
    image, stuff = ground(rng, width, height)
    clutter(rng, image, stuff)
    owner = np.zeros((height, width), np.uint8)
    for number, item in reversed(list(enumerate(items, 1))):
        for outline in item.outlines:
            window, covered = _paint(rng, image, outline)
            owner[window][covered] = number
    image += 5 * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image, 0, 255).round().astype(np.uint8), owner, stuff
