"""The records of the embedded data set in COCO's and ADE20K's formats.

COCO: https://cocodataset.org/#format-data (instances and panoptic). ADE20K: the SceneParsing benchmark's
8-bit masks, 0 = unlabelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from shapely.geometry import Polygon

from regnet_backbones.data.render import STUFF_CLASSES
from regnet_backbones.data.shapes import THING_CLASSES, Item, pieces, without_holes

# With gaps, as COCO's, so that nobody takes an id for an index.
THING_IDS = dict(zip(THING_CLASSES, (1, 2, 3, 5, 7, 8, 11, 13), strict=True))
STUFF_IDS = dict(zip(STUFF_CLASSES, (92, 95, 100), strict=True))
ADE_CLASSES = THING_CLASSES + STUFF_CLASSES  # mask value = index + 1

_CC0 = "https://creativecommons.org/publicdomain/zero/1.0/"
_HEAD = {
    "info": {"description": "RegNet Backbones' embedded set of shapes", "version": "1.0"},
    "licenses": [{"id": 1, "name": "Public Domain (CC0 1.0)", "url": _CC0}],
}


@dataclass(frozen=True)
class Scene:
    """One image, uint8 (H, W, 3), its things front to back, and `render.draw`'s two maps, uint8 (H, W)."""

    image_id: int
    image: np.ndarray
    items: list[Item]
    owner: np.ndarray
    stuff: np.ndarray


@dataclass
class Coco:
    """Collects the two JSON files of a split."""

    instances: dict[str, Any] = field(default_factory=lambda: _document(THING_IDS, panoptic=False))
    panoptic: dict[str, Any] = field(default_factory=lambda: _document(THING_IDS | STUFF_IDS, panoptic=True))

    def add(self, scene: Scene) -> np.ndarray:
        """Adds an image; returns its panoptic picture, uint8 (H, W, 3)."""
        height, width = scene.owner.shape
        name, image_id = f"{scene.image_id:012d}", {"image_id": scene.image_id}
        size = {"height": height, "width": width}
        image = {"id": scene.image_id, "file_name": f"{name}.jpg", "license": 1} | size
        picture, segments = _panoptic(scene)
        self.instances["images"].append(image)
        self.instances["annotations"] += _instances(scene)
        self.panoptic["images"].append(image)
        self.panoptic["annotations"].append(image_id | {"file_name": f"{name}.png", "segments_info": segments})
        return picture


def ade_mask(scene: Scene) -> np.ndarray:
    """ADE20K's label map, uint8 (H, W): 0 unlabelled, then `ADE_CLASSES` from 1."""
    of_item = np.array([0, *(item.label + 1 for item in scene.items)], np.uint8)
    stuff = np.where(scene.stuff > 0, scene.stuff + len(THING_CLASSES), 0)
    return np.where(scene.owner > 0, of_item[scene.owner], stuff).astype(np.uint8)


def ade_listing() -> str:
    """The table of classes, in the manner of ADE20K's objectInfo150.txt."""
    rows = [f"{i}\t{int(name in STUFF_IDS)}\t{name}" for i, name in enumerate(ADE_CLASSES, 1)]
    return "\n".join(["Idx\tStuff\tName", *rows]) + "\n"


def _document(ids: dict[str, int], panoptic: bool) -> dict[str, Any]:
    categories = []
    for name, number in ids.items():
        category = {"supercategory": "shape" if name in THING_IDS else "ground", "id": number, "name": name}
        categories.append(category | ({"isthing": int(name in THING_IDS)} if panoptic else {}))
    return _HEAD | {"images": [], "annotations": [], "categories": categories}


def _instances(scene: Scene) -> list[dict[str, Any]]:
    records = []
    for number, item in enumerate(scene.items, 1):
        shape = _crowd_region(scene.owner == number) if item.crowd else _polygons(item)
        ids = {"id": scene.image_id * 100 + number, "image_id": scene.image_id}
        category = THING_IDS[THING_CLASSES[item.label]]
        records.append(ids | {"category_id": category, "iscrowd": int(item.crowd)} | shape)
    return records


def _polygons(item: Item) -> dict[str, Any]:
    parts = [whole for part in pieces(item.visible) for whole in without_holes(part)]
    x0, y0, x1, y1 = item.visible.bounds
    return {
        "segmentation": [_flat(part) for part in parts],
        "area": round(item.visible.area, 2),
        "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
    }


def _flat(polygon: Polygon) -> list[float]:
    return [round(v, 2) for point in polygon.exterior.coords[:-1] for v in point]


def _crowd_region(mask: np.ndarray) -> dict[str, Any]:
    return {
        "segmentation": {"counts": _run_lengths(mask), "size": list(mask.shape)},
        "area": int(mask.sum()),
        "bbox": _box(mask),
    }


def _run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: lengths of the runs down the columns, the first one of zeros."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False, append=~flat[-1:]))
    return np.diff(changes, prepend=0).tolist()


def _box(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def _panoptic(scene: Scene) -> tuple[np.ndarray, list[dict[str, Any]]]:
    kinds = [(THING_IDS[THING_CLASSES[item.label]], item.crowd) for item in scene.items]
    masks = [scene.owner == number for number in range(1, len(kinds) + 1)]
    kinds += [(category, False) for category in STUFF_IDS.values()]
    behind = np.where(scene.owner > 0, 0, scene.stuff)
    masks += [behind == number for number in range(1, len(STUFF_IDS) + 1)]
    segments, ids = [], np.zeros(scene.owner.shape, np.int64)
    for number, (mask, (category, crowd)) in enumerate(zip(masks, kinds, strict=True), 1):
        if not mask.any():
            continue
        # Odd, so invertible modulo 2**24: different for every number, and all three bytes are used.
        ids[mask] = segment = number * 7_654_321 % 2**24
        record = {"id": segment, "category_id": category, "iscrowd": int(crowd)}
        segments.append(record | {"bbox": _box(mask), "area": int(mask.sum())})
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8), segments
