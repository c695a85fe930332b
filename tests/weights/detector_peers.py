"""Detectors of both frameworks from this project's configs, made small, confident and comparable.

A random head scores every box alike. :func:`calibrate` scales the output layers during one forward pass, so that
scores spread, boxes move and masks have edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import pytest
import torch
from conftest import ROOT, randomize
from torch import Tensor, nn

pytest.importorskip("detectron2")
pytest.importorskip("mmdet")

from detectron2.config import get_cfg
from detectron2.modeling import build_model
from detectron2.structures import Boxes
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope

from regnet_backbones.adapters.detectron2 import add_regnet_config

CLASSES, PROPOSALS, DETECTIONS = 5, 200, 30
D2, MM = ROOT / "configs" / "detectron2", ROOT / "configs" / "mmdet"
CONFIGS = {
    "faster_rcnn": (D2 / "faster_rcnn_regnetx_400mf.yaml", MM / "faster-rcnn_regnetx-3.2gf_fpn_1x_coco.py"),
    "mask_rcnn": (D2 / "mask_rcnn_regnety_4gf.yaml", MM / "mask-rcnn_regnety-4gf_fpn_1x_coco.py"),
    "retinanet": (D2 / "retinanet_regnetx_400mf.yaml", MM / "retinanet_regnetx-800mf_fpn_1x_coco.py"),
}
# Output layers: Detectron2's name, MMDetection's, and the mean and spread of what they are made to put out.
OUTPUTS = {
    "rcnn": [
        ("proposal_generator.rpn_head.objectness_logits", "rpn_head.rpn_cls", -2.0, 1.5),
        ("proposal_generator.rpn_head.anchor_deltas", "rpn_head.rpn_reg", 0.0, 0.2),
        ("roi_heads.box_predictor.cls_score", "roi_head.bbox_head.fc_cls", 0.0, 3.0),
        ("roi_heads.box_predictor.bbox_pred", "roi_head.bbox_head.fc_reg", 0.0, 1.0),
    ],
    "mask": [("roi_heads.mask_head.predictor", "roi_head.mask_head.conv_logits", 0.0, 3.0)],
    "retinanet": [
        ("head.cls_score", "bbox_head.retina_cls", -6.0, 3.0),
        ("head.bbox_pred", "bbox_head.retina_reg", 0.0, 0.2),
    ],
}


@dataclass
class Detections:
    """Boxes (N, 4) in pixels, scores and classes (N,), masks (N, H, W) or None."""

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor | None


def outputs(detector: str) -> list[tuple[str, str, float, float]]:
    if detector == "retinanet":
        return OUTPUTS["retinanet"]
    return OUTPUTS["rcnn"] + (OUTPUTS["mask"] if detector == "mask_rcnn" else [])


def detectron2(config: Path, *options: object) -> nn.Module:
    cfg = get_cfg()
    add_regnet_config(cfg)
    cfg.merge_from_file(str(config))
    limits = ("MODEL.RPN.POST_NMS_TOPK_TEST", PROPOSALS, "TEST.DETECTIONS_PER_IMAGE", DETECTIONS)
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *limits, *options])
    return randomize(build_model(cfg), seed=1).eval()


def small_detectron2(detector: str, arch: str, *options: object) -> nn.Module:
    node = "RETINANET" if detector == "retinanet" else "ROI_HEADS"
    small = ("MODEL.REGNET.ARCH", arch, f"MODEL.{node}.NUM_CLASSES", CLASSES, "MODEL.ROI_BOX_HEAD.FC_DIM", 128)
    return detectron2(CONFIGS[detector][0], *small, *options)


def mmdetection(config: Path, options: dict[str, object], num_classes: int | None = CLASSES) -> nn.Module:
    cfg = Config.fromfile(str(config))
    heads = [cfg.model.get("bbox_head"), *(cfg.model.get("roi_head", {}).get(n) for n in ("bbox_head", "mask_head"))]
    for head in heads:
        if head and num_classes:
            head.num_classes = num_classes
    cfg.merge_from_dict({"model.backbone.init_cfg": None, **options})
    test = cfg.model.test_cfg
    (test.rcnn if "rcnn" in test else test).max_per_img = DETECTIONS
    if "rpn" in test:
        test.rpn.max_per_img = PROPOSALS
    with DefaultScope.overwrite_default_scope("mmdet"):
        return randomize(MODELS.build(cfg.model), seed=2).eval()


def small_mmdetection(detector: str, arch: str, options: dict[str, object] | None = None) -> nn.Module:
    small: dict[str, object] = {"model.backbone.arch": arch}
    if detector != "retinanet":
        small["model.roi_head.bbox_head.fc_out_channels"] = 128
    return mmdetection(CONFIGS[detector][1], small | (options or {}))


def pictures(coco_mini: Path, count: int, short: int = 160) -> list[Tensor]:
    """Real images (3, H, W) of 0..255 in BGR, already resized; their sides are no multiples of 32."""
    images = []
    for path in sorted((coco_mini / "val2017").glob("*.jpg"))[:count]:
        image = cv2.imread(str(path))
        scale = short / min(image.shape[:2])
        resized = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        images.append(torch.from_numpy(resized).permute(2, 0, 1).contiguous())
    return images


@torch.no_grad()
def detect(model: nn.Module, image: Tensor) -> Detections:
    """What either framework's model finds, in ``image``'s pixels."""
    height, width = image.shape[1:]
    if hasattr(model, "test_step"):
        sample = DetDataSample(metainfo={"img_shape": (height, width), "ori_shape": (height, width),
                                         "scale_factor": (1.0, 1.0)})  # fmt: skip
        found = model.test_step({"inputs": [image], "data_samples": [sample]})[0].pred_instances
        return Detections(found.bboxes, found.scores, found.labels, found.get("masks"))
    found = model([{"image": image, "height": height, "width": width}])[0]["instances"]
    masks = found.pred_masks if found.has("pred_masks") else None
    return Detections(found.pred_boxes.tensor, found.scores, found.pred_classes, masks)


def calibrate(model: nn.Module, detector: str, image: Tensor) -> nn.Module:
    """Scale the output layers; the first image passes through them as they become."""
    side = 1 if hasattr(model, "test_step") else 0
    targets = {row[side]: row[2:] for row in outputs(detector)}
    hooks = [
        model.get_submodule(name).register_forward_hook(partial(_rescale, mean=mean, spread=spread, done=set()))
        for name, (mean, spread) in targets.items()
    ]
    detect(model, image)
    for hook in hooks:
        hook.remove()
    return model


def _rescale(layer: nn.Module, _: object, out: Tensor, *, mean: float, spread: float, done: set) -> Tensor | None:
    if done:
        return None
    done.add(True)
    axes = [axis for axis in range(out.dim()) if axis != 1]
    centre, scale = out.mean(axes), spread / out.std()
    layer.weight.data.mul_(scale)
    layer.bias.data.sub_(centre).mul_(scale).add_(mean)
    shape = [-1 if axis == 1 else 1 for axis in range(out.dim())]
    return (out - centre.view(shape)) * scale + mean


@torch.no_grad()
def pyramid(model: nn.Module, image: Tensor) -> list[Tensor]:
    """Every level of the FPN, fine to coarse, on the normalized and padded image."""
    if hasattr(model, "extract_feat"):
        batch = model.data_preprocessor({"inputs": [image], "data_samples": [DetDataSample()]})["inputs"]
        return list(model.extract_feat(batch.to(next(model.parameters()).dtype)))
    batch = model.preprocess_image([{"image": image}]).tensor
    return list(model.backbone(batch.to(next(model.parameters()).dtype)).values())


@torch.no_grad()
def head_outputs(model: nn.Module, detector: str, levels: list[Tensor], regions: Tensor) -> dict[str, list[Tensor]]:
    """Detectron2's name of an output layer to what it puts out on given levels and, in R-CNNs, given regions (N, 4)."""
    side = 1 if hasattr(model, "test_step") else 0
    seen: dict[str, list[Tensor]] = {row[0]: [] for row in outputs(detector)}
    hooks = [
        model.get_submodule(row[side]).register_forward_hook(lambda _m, _i, out, name=row[0]: seen[name].append(out))
        for row in outputs(detector)
    ]
    (_mmdetection_heads if side else _detectron2_heads)(model, detector, levels, regions)
    for hook in hooks:
        hook.remove()
    return seen


def _mmdetection_heads(model: nn.Module, detector: str, levels: list[Tensor], regions: Tensor) -> None:
    if detector == "retinanet":
        model.bbox_head(tuple(levels))
        return
    model.rpn_head(tuple(levels))
    rois = torch.cat([regions.new_zeros(len(regions), 1), regions], 1)
    model.roi_head._bbox_forward(tuple(levels), rois)
    if detector == "mask_rcnn":
        model.roi_head._mask_forward(tuple(levels), rois)


def _detectron2_heads(model: nn.Module, detector: str, levels: list[Tensor], regions: Tensor) -> None:
    if detector == "retinanet":
        model.head(levels)
        return
    model.proposal_generator.rpn_head(levels)
    heads = model.roi_heads
    heads.box_predictor(heads.box_head(heads.box_pooler(levels[:4], [Boxes(regions)])))
    if detector == "mask_rcnn":
        heads.mask_head.layers(heads.mask_pooler(levels[:4], [Boxes(regions)]))


def regions(image: Tensor, count: int = 40) -> Tensor:
    """Boxes of every size within ``image``, so that every level of the FPN is read."""
    generator = torch.Generator().manual_seed(3)
    limits = torch.tensor([image.shape[2], image.shape[1]] * 2)
    first, second = torch.rand(2, count, 2, generator=generator)
    boxes = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)
    boxes[: count // 2, 2:] = boxes[: count // 2, :2] + 0.1 * (boxes[: count // 2, 2:] - boxes[: count // 2, :2])
    return boxes * limits
