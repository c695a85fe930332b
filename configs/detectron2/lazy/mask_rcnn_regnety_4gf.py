"""Mask R-CNN 1x on COCO as a LazyConfig, for Detectron2's own lazyconfig_train_net.py.

Detectron2's common model with our trunk in it: the FPN takes its channels from whatever ``arch`` names.
"""

from detectron2.config import LazyCall
from detectron2.model_zoo import get_config

from regnet_backbones.adapters.detectron2 import RegNetBackbone

dataloader = get_config("common/data/coco.py").dataloader
lr_multiplier = get_config("common/coco_schedule.py").lr_multiplier_1x
model = get_config("common/models/mask_rcnn_fpn.py").model
optimizer = get_config("common/optim.py").SGD
train = get_config("common/train.py").train

model.backbone.bottom_up = LazyCall(RegNetBackbone)(arch="regnety_4gf", norm="FrozenBN", freeze_at=2)
model.backbone.in_features = ["s1", "s2", "s3", "s4"]
model.pixel_mean = [103.53, 116.28, 123.675]
model.pixel_std = [57.375, 57.12, 58.395]
dataloader.train.mapper.image_format = "BGR"
dataloader.test.mapper.image_format = "BGR"
optimizer.weight_decay = 5e-5
train.init_checkpoint = ""
