# RetinaNet on COCO, 12 epochs at 16 images per step (8 GPUs; fewer: --auto-scale-lr):
#   COCO_ROOT=... tools/train.py configs/mmdet/retinanet_regnetx-800mf_fpn_1x_coco.py
#       --cfg-options model.backbone.init_cfg.checkpoint=RegNetX-800MF_dds_8gpu.pyth
_base_ = ["./_base_/retinanet_regnet_fpn.py", "./_base_/coco_detection_1x.py"]

model = dict(backbone=dict(arch="regnetx_800mf"))
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
