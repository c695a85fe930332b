"""Detectron2's new baseline (100 epochs of large-scale jitter, SyncBN everywhere, from scratch) on our trunk.

The names are the same, so its published checkpoints load as ``train.init_checkpoint``.
"""

from detectron2.config import LazyCall
from detectron2.model_zoo import get_config

from regnet_backbones.adapters.detectron2 import RegNetBackbone

_baseline = get_config("new_baselines/mask_rcnn_regnetx_4gf_dds_FPN_100ep_LSJ.py")
dataloader, lr_multiplier, model = _baseline.dataloader, _baseline.lr_multiplier, _baseline.model
optimizer, train = _baseline.optimizer, _baseline.train

model.backbone.bottom_up = LazyCall(RegNetBackbone)(
    arch="regnetx_4gf", norm="SyncBN", out_features=["s1", "s2", "s3", "s4"]
)
