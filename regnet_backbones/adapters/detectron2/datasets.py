"""The embedded data set in Detectron2's catalogs, and ADE20K's masks as Detectron2 wants them.

Nothing on disk is touched before a data set is used. ``DETECTRON2_DATASETS`` names the folder that holds
``regnet_shapes/`` (and ``coco/``, ``ADEChallengeData2016/``); it is read at import, as Detectron2 does.
"""

from __future__ import annotations

import logging
import os
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg, register_coco_instances
from PIL import Image

from ...errors import UserError

IGNORED = 255
PREPARED = "annotations_detectron2"  # the name that Detectron2's builtin ADE20K expects
logger = logging.getLogger(__name__)


def root() -> Path:
    """The folder of all data sets."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def register_embedded() -> None:
    """Register ``regnet_shapes_coco_{train,val}`` and ``regnet_shapes_sem_seg_{train,val}``."""
    if not find_spec("shapely"):  # without it the set cannot be made either
        return
    from ...data.embedded import ADE_CLASSES, FOLDER, SPLITS, THING_CLASSES, THING_IDS

    coco, ade = root() / FOLDER / "coco", root() / FOLDER / "ADEChallengeData2016"
    contiguous = {THING_IDS[name]: index for index, name in enumerate(THING_CLASSES)}
    for split, (year, phase, _) in SPLITS.items():
        register_coco_instances(
            f"regnet_shapes_coco_{split}",
            {"thing_classes": [*THING_CLASSES], "thing_dataset_id_to_contiguous_id": contiguous},
            str(coco / "annotations" / f"instances_{year}.json"),
            str(coco / year),
        )
        images, masks = str(ade / "images" / phase), str(ade / PREPARED / phase)
        name = f"regnet_shapes_sem_seg_{split}"
        DatasetCatalog.register(name, partial(_load_prepared, masks, images))
        MetadataCatalog.get(name).set(
            stuff_classes=[*ADE_CLASSES],
            image_root=images,
            sem_seg_root=masks,
            evaluator_type="sem_seg",
            ignore_label=IGNORED,
        )


def _load_prepared(masks: str, images: str) -> list[dict[str, Any]]:
    prepare_sem_seg(masks)
    return load_sem_seg(masks, images, gt_ext="png", image_ext="jpg")


def prepare_sem_seg(masks: str | os.PathLike) -> None:
    """Make ``.../annotations_detectron2/<split>`` from ``.../annotations/<split>`` unless it is there.

    ADE20K counts its classes from 1 and keeps 0 for unlabelled pixels; Detectron2 counts from 0 and ignores 255.
    The folder appears whole or not at all.

    Raises:
        UserError: the folder cannot be written, or a mask is not an image.
    """
    target = Path(masks)
    source = target.parent.parent / "annotations" / target.name
    if target.exists() or target.parent.name != PREPARED or not source.is_dir():
        return
    logger.info("preparing the masks of %s in %s", source, target)
    try:
        target.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
            folder = Path(scratch) / target.name
            folder.mkdir()
            for path in sorted(source.glob("*.png")):
                Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(folder / path.name)  # 0 - 1 is 255
            os.rename(folder, target)
    except OSError as error:
        if not target.exists():  # otherwise another process was faster
            raise UserError(f"cannot prepare the masks of {source} in {target}: {error}") from error


def read_mask(path: str, dtype: Any = None) -> np.ndarray:
    """A label map (H, W), for Detectron2's SemSegEvaluator, whose own reader fails with numpy 2."""
    return np.array(Image.open(path), dtype=dtype)
