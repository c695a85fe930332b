# For the four detectors that MMDetection published as mask-rcnn_regnetx-*_fpn_ms-poly-3x_coco: fine-tuned in RGB out
# of BGR weights, they must be run in RGB. Convert with --whole-detector --to mmdet --source-channel-order RGB.
_base_ = ["./_base_/mask-rcnn_regnet_fpn.py", "./_base_/coco_instance_1x.py"]

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True),
    backbone=dict(arch="regnetx_400mf"),
)
