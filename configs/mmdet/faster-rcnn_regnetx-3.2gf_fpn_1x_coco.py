# Faster R-CNN on COCO, 12 epochs at 16 images per step (8 GPUs; fewer: --auto-scale-lr):
#   COCO_ROOT=... tools/train.py configs/mmdet/faster-rcnn_regnetx-3.2gf_fpn_1x_coco.py
#       --cfg-options model.backbone.init_cfg.checkpoint=RegNetX-3.2GF_dds_8gpu.pyth
_base_ = ["./_base_/faster-rcnn_regnet_fpn.py", "./_base_/coco_detection_1x.py"]

model = dict(backbone=dict(arch="regnetx_3.2gf"))
