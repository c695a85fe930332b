# Mask R-CNN on COCO, 12 epochs at 16 images per step (8 GPUs; fewer: --auto-scale-lr):
#   COCO_ROOT=... tools/train.py configs/mmdet/mask-rcnn_regnety-4gf_fpn_1x_coco.py
#       --cfg-options model.backbone.init_cfg.checkpoint=RegNetY-4.0GF_dds_8gpu.pyth
_base_ = ["./_base_/mask-rcnn_regnet_fpn.py", "./_base_/coco_instance_1x.py"]

model = dict(backbone=dict(arch="regnety_4gf"))
