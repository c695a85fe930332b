"""What can be wrong with a config, said in one sentence before anything is built or any process started."""

from __future__ import annotations

import difflib
import json
import os
from pathlib import Path
from urllib.parse import urlparse

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY

from ...errors import UserError
from ...trunk import RegNet
from .backbone import BUILDERS
from .checkpoint import fetch
from .datasets import prepare_sem_seg, root

PARSED_LIMIT = 64_000_000  # bytes: larger annotation files are read once, by Detectron2 itself
NORM_NODES = ("REGNET", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "SEM_SEG_HEAD", "RETINANET")


def check_config(cfg: CfgNode, processes: int, *, evaluates_only: bool) -> None:
    """Raise the first UserError that training or evaluating with ``cfg`` on ``processes`` processes would meet."""
    _check_device(cfg, processes)
    if cfg.MODEL.BACKBONE.NAME in BUILDERS:
        _check_sizes(cfg, _deepest_stride(cfg))
    if cfg.MODEL.WEIGHTS and not urlparse(cfg.MODEL.WEIGHTS).scheme:
        fetch(cfg.MODEL.WEIGHTS)
    for key in ("TEST",) if evaluates_only else ("TRAIN", "TEST"):
        if key == "TRAIN" and not cfg.DATASETS.TRAIN:
            raise UserError("DATASETS.TRAIN names no data set; give one, ('coco_2017_train',) for example")
        for name in cfg.DATASETS[key]:
            check_dataset(name)
            _check_classes(cfg, name)
    if not evaluates_only and cfg.SOLVER.IMS_PER_BATCH % processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH} cannot be shared by {processes} processes; give a"
            f" multiple of {processes}"
        )
    if cfg.SOLVER.OPTIMIZER.upper() not in ("SGD", "ADAMW"):
        raise UserError(f"SOLVER.OPTIMIZER {cfg.SOLVER.OPTIMIZER} is not known; choose SGD or ADAMW")


def _check_device(cfg: CfgNode, processes: int) -> None:
    device = torch.device(cfg.MODEL.DEVICE).type
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("MODEL.DEVICE is cuda, but PyTorch sees no GPU; append MODEL.DEVICE cpu to the command")
    if device == "cpu" and cfg.SOLVER.AMP.ENABLED:
        raise UserError("SOLVER.AMP.ENABLED needs a GPU in Detectron2; set it to False for MODEL.DEVICE cpu")
    if device == "cpu" and processes > 1:
        synced = [f"MODEL.{node}.NORM" for node in NORM_NODES if cfg.MODEL[node].NORM == "SyncBN"]
        if synced:
            raise UserError(
                f"{synced[0]} is SyncBN, which does not run on several CPU processes (PyTorch has it for GPUs only);"
                " set it to BN, FrozenBN or GN"
            )


def _deepest_stride(cfg: CfgNode) -> int:
    """Builds the backbone without memory, and so meets everything wrong with its options."""
    with torch.device("meta"):
        backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
    trunk = next(module for module in backbone.modules() if isinstance(module, RegNet))
    return trunk.strides[trunk.built[-1]]


def _check_sizes(cfg: CfgNode, stride: int) -> None:
    sizes = {"MIN_SIZE_TEST": cfg.INPUT.MIN_SIZE_TEST, "MAX_SIZE_TEST": cfg.INPUT.MAX_SIZE_TEST}
    sizes |= {"MIN_SIZE_TRAIN": min(cfg.INPUT.MIN_SIZE_TRAIN, default=0), "MAX_SIZE_TRAIN": cfg.INPUT.MAX_SIZE_TRAIN}
    if cfg.INPUT.CROP.ENABLED and cfg.INPUT.CROP.TYPE.startswith("absolute"):
        sizes["CROP.SIZE"] = min(cfg.INPUT.CROP.SIZE)
    for key, size in sizes.items():
        if 0 < size < stride:  # 0 keeps the images' own sizes
            raise UserError(
                f"INPUT.{key} {size} is too small: the backbone's deepest feature has stride {stride}; give at least"
                f" {stride} pixels"
            )


def check_dataset(name: str) -> None:
    """Raise unless the data set is registered and, for the layouts that Detectron2 knows, its files are there."""
    if name not in DatasetCatalog:
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.0)
        raise UserError(f"there is no data set '{name}'; the nearest registered ones are {', '.join(close)}")
    meta = MetadataCatalog.get(name)
    if meta.get("sem_seg_root"):
        prepare_sem_seg(meta.sem_seg_root)
    for kind in ("json_file", "image_root", "sem_seg_root", "panoptic_root", "panoptic_json"):
        path = meta.get(kind)
        if path and "://" not in path and not os.path.exists(path):
            raise UserError(f"the data set {name} is not there: looked for {os.path.abspath(path)}; {_advice(path)}")
    if meta.get("json_file") and os.path.isfile(meta.json_file):
        _check_annotations(name, Path(meta.json_file))


def _advice(path: str) -> str:
    first = os.path.relpath(path, root()).split(os.sep)[0]
    if first == os.pardir:
        return "correct the path that it is registered with"
    return f"set DETECTRON2_DATASETS to the folder that holds {first}/"


def _check_annotations(name: str, path: Path) -> None:
    advice = "put COCO's instances JSON there"
    try:
        if path.stat().st_size > PARSED_LIMIT:
            with path.open("rb") as file:
                document = {} if file.read(64).lstrip().startswith(b"{") else None
        else:
            document = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"the annotations of {name}, {path}, cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"the annotations of {name}, {path}, are not JSON ({error}); {advice}") from error
    if not isinstance(document, dict) or (document and "images" not in document):
        raise UserError(f"the annotations of {name}, {path}, have no entry 'images'; {advice}")


def _check_classes(cfg: CfgNode, name: str) -> None:
    key = {"RetinaNet": "RETINANET", "GeneralizedRCNN": "ROI_HEADS", "SemanticSegmentor": "SEM_SEG_HEAD"}.get(
        cfg.MODEL.META_ARCHITECTURE
    )
    if key:
        classes = MetadataCatalog.get(name).get("stuff_classes" if key == "SEM_SEG_HEAD" else "thing_classes")
        if classes and len(classes) > cfg.MODEL[key].NUM_CLASSES:
            raise UserError(
                f"MODEL.{key}.NUM_CLASSES is {cfg.MODEL[key].NUM_CLASSES}, but {name} has {len(classes)} classes;"
                " give the same number"
            )
