"""Names of necks and heads: Detectron2's module on the left, MMDetection's on the right.

Rows are read by the same engine as those of the trunks: ``{i}`` counts an FPN's levels (2 is stride 4) or the layers
of a head. Batch norm is Detectron2's ``.norm``, inside the convolution, and MMDetection's ``.bn``, beside it.
"""

from __future__ import annotations

from ..rename import Rename, inverse

_RCNN_NECK = {
    "backbone.fpn_lateral{i}": "neck.lateral_convs.{i-2}.conv",
    "backbone.fpn_lateral{i}.norm": "neck.lateral_convs.{i-2}.bn",
    "backbone.fpn_output{i}": "neck.fpn_convs.{i-2}.conv",
    "backbone.fpn_output{i}.norm": "neck.fpn_convs.{i-2}.bn",
}
_FASTER = {
    **_RCNN_NECK,
    "proposal_generator.rpn_head.conv": "rpn_head.rpn_conv",
    "proposal_generator.rpn_head.conv.conv{i-1}": "rpn_head.rpn_conv.{i-1}.conv",
    "proposal_generator.rpn_head.objectness_logits": "rpn_head.rpn_cls",
    "proposal_generator.rpn_head.anchor_deltas": "rpn_head.rpn_reg",
    "roi_heads.box_head.conv{i}": "roi_head.bbox_head.shared_convs.{i-1}.conv",
    "roi_heads.box_head.conv{i}.norm": "roi_head.bbox_head.shared_convs.{i-1}.bn",
    "roi_heads.box_head.fc{i}": "roi_head.bbox_head.shared_fcs.{i-1}",
    "roi_heads.box_predictor.cls_score": "roi_head.bbox_head.fc_cls",
    "roi_heads.box_predictor.bbox_pred": "roi_head.bbox_head.fc_reg",
}
_MASK = {
    **_FASTER,
    "roi_heads.mask_head.mask_fcn{i}": "roi_head.mask_head.convs.{i-1}.conv",
    "roi_heads.mask_head.mask_fcn{i}.norm": "roi_head.mask_head.convs.{i-1}.bn",
    "roi_heads.mask_head.deconv": "roi_head.mask_head.upsample",
    "roi_heads.mask_head.predictor": "roi_head.mask_head.conv_logits",
}
_RETINANET = {
    # First, because MMDetection counts P6 and P7 on among the levels of the FPN itself.
    "backbone.top_block.p6": "neck.fpn_convs.3.conv",
    "backbone.top_block.p7": "neck.fpn_convs.4.conv",
    "backbone.fpn_lateral{i}": "neck.lateral_convs.{i-3}.conv",
    "backbone.fpn_lateral{i}.norm": "neck.lateral_convs.{i-3}.bn",
    "backbone.fpn_output{i}": "neck.fpn_convs.{i-3}.conv",
    "backbone.fpn_output{i}.norm": "neck.fpn_convs.{i-3}.bn",
    # Detectron2 counts the ReLUs in between.
    **{f"head.cls_subnet.{2 * i}": f"bbox_head.cls_convs.{i}.conv" for i in range(8)},
    **{f"head.bbox_subnet.{2 * i}": f"bbox_head.reg_convs.{i}.conv" for i in range(8)},
    "head.cls_score": "bbox_head.retina_cls",
    "head.bbox_pred": "bbox_head.retina_reg",
}
TABLES = {"faster_rcnn": _FASTER, "mask_rcnn": _MASK, "retinanet": _RETINANET}
TITLES = {"faster_rcnn": "Faster R-CNN", "mask_rcnn": "Mask R-CNN", "retinanet": "RetinaNet"}

# Tensors whose first axis counts the anchors of a cell.
ANCHORED = {
    "faster_rcnn": ("proposal_generator.rpn_head.objectness_logits", "proposal_generator.rpn_head.anchor_deltas"),
    "mask_rcnn": ("proposal_generator.rpn_head.objectness_logits", "proposal_generator.rpn_head.anchor_deltas"),
    "retinanet": ("head.cls_score", "head.bbox_pred"),
}


def to_detectron2(detector: str) -> Rename:
    """From MMDetection's names to Detectron2's."""
    return Rename(inverse(TABLES[detector]))


def to_mmdet(detector: str) -> Rename:
    """From Detectron2's names to MMDetection's."""
    return Rename(TABLES[detector])
