"""The embedded data set: textured shapes on cluttered ground, made in seconds, in two layouts.

    <root>/regnet_shapes/regnet_shapes.json                 the parameters it was made with
    <root>/regnet_shapes/coco/{train2017,val2017}/          images
    <root>/regnet_shapes/coco/annotations/                  instances and panoptic segmentation
    <root>/regnet_shapes/ADEChallengeData2016/{images,annotations}/{training,validation}/

Both layouts hold the same images. Image i depends on (seed, split, i, size) alone.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from regnet_backbones.data import layouts
from regnet_backbones.data.layouts import ADE_CLASSES, STUFF_IDS, THING_IDS, Coco, Scene
from regnet_backbones.data.render import STUFF_CLASSES, draw
from regnet_backbones.data.shapes import THING_CLASSES, arrange
from regnet_backbones.errors import UserError

__all__ = ["ADE_CLASSES", "STUFF_CLASSES", "STUFF_IDS", "THING_CLASSES", "THING_IDS", "make"]

VERSION = 1  # raised with every change that alters a byte of the output
FOLDER, MANIFEST = "regnet_shapes", "regnet_shapes.json"
MAX_IMAGES = 500_000  # image ids of val follow
GREY_EVERY, JPEG_QUALITY = 50, 92
ASPECTS = (1.0, 4 / 3, 3 / 4, 3 / 2, 2 / 3)
# split: COCO's folder, ADE20K's folder, ADE20K's prefix
SPLITS = {"train": ("train2017", "training", "ADE_train"), "val": ("val2017", "validation", "ADE_val")}


def make(
    root: str | os.PathLike[str],
    *,
    num_train: int = 320,
    num_val: int = 80,
    size: int = 192,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Makes the set under `root`, or finds it there, and returns its folder.

    `size` is the side in pixels of a square of the images' mean area; `progress` is called with (images done,
    images in all). The folder appears whole or not at all. Raises UserError for impossible parameters and for
    a folder of that name which was made with others or holds something else.
    """
    parameters = {"num_train": num_train, "num_val": num_val, "size": size, "seed": seed}
    _check(parameters)
    target = Path(root) / FOLDER
    manifest = {"version": VERSION} | parameters
    if target.exists():
        return _same(target, manifest)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root, prefix=f".{FOLDER}-") as scratch:
            built = Path(scratch) / FOLDER  # a level below, since only the user may read the scratch folder
            _build(built, manifest, progress or (lambda done, total: None))
            os.rename(built, target)
    except OSError as error:
        if target.exists():  # someone else was faster
            return _same(target, manifest)
        raise UserError(f"cannot write the embedded data to {target} ({error}): choose another folder") from error
    return target


def _check(parameters: dict[str, int]) -> None:
    images = (1, MAX_IMAGES)
    bounds = {"num_train": images, "num_val": images, "size": (64, 4096), "seed": (0, 2**63 - 1)}
    for name, value in parameters.items():
        low, high = bounds[name]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise UserError(f"the embedded data's {name} must be an integer from {low} to {high}, not {value!r}")


def _same(target: Path, manifest: dict[str, int]) -> Path:
    advice = "choose another folder or delete it"
    try:
        found = json.loads((target / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{target} exists but has no readable {MANIFEST}: {advice}") from error
    for name, value in manifest.items():
        if not isinstance(found, dict) or found.get(name) != value:
            was = found.get(name) if isinstance(found, dict) else None
            raise UserError(f"{target} was made with {name}={was}, not {name}={value}: {advice}")
    return target


def _build(folder: Path, manifest: dict[str, int], progress: Callable[[int, int], object]) -> None:
    counts = {"train": manifest["num_train"], "val": manifest["num_val"]}
    coco, ade = folder / "coco", folder / "ADEChallengeData2016"
    done, total = 0, sum(counts.values())
    for number, (split, count) in enumerate(counts.items()):
        _folders(coco, ade, split)
        records = Coco()
        for index in range(count):
            scene = _scene(manifest["seed"], number, index, manifest["size"])
            _write(scene, records, coco, ade, split, index)
            done += 1
            progress(done, total)
        year = SPLITS[split][0]
        (coco / "annotations" / f"instances_{year}.json").write_text(json.dumps(records.instances))
        (coco / "annotations" / f"panoptic_{year}.json").write_text(json.dumps(records.panoptic))
    (ade / "objectInfo.txt").write_text(layouts.ade_listing())
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def _folders(coco: Path, ade: Path, split: str) -> None:
    year, phase, _ = SPLITS[split]
    for path in (coco / year, coco / "annotations" / f"panoptic_{year}"):
        path.mkdir(parents=True)
    for path in (ade / "images" / phase, ade / "annotations" / phase):
        path.mkdir(parents=True)


def _scene(seed: int, split: int, index: int, size: int) -> Scene:
    rng = np.random.default_rng([seed, split, index])
    aspect = rng.choice(ASPECTS) * rng.uniform(0.95, 1.05)
    side = size * rng.uniform(0.9, 1.1)
    width, height = round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))
    items = arrange(rng, width, height, index)
    image, owner, stuff = draw(rng, width, height, items)
    return Scene(split * MAX_IMAGES + index + 1, image, items, owner, stuff)


def _write(scene: Scene, records: Coco, coco: Path, ade: Path, split: str, index: int) -> None:
    year, phase, prefix = SPLITS[split]
    name, ade_name = f"{scene.image_id:012d}", f"{prefix}_{index + 1:08d}"
    image = Image.fromarray(scene.image).convert("L" if index % GREY_EVERY == 5 else "RGB")
    image.save(coco / year / f"{name}.jpg", quality=JPEG_QUALITY)
    shutil.copyfile(coco / year / f"{name}.jpg", ade / "images" / phase / f"{ade_name}.jpg")
    Image.fromarray(records.add(scene)).save(coco / "annotations" / f"panoptic_{year}" / f"{name}.png")
    Image.fromarray(layouts.ade_mask(scene)).save(ade / "annotations" / phase / f"{ade_name}.png")
