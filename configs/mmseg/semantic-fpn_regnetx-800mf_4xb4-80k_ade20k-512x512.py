# Semantic FPN on ADE20K, 80k steps of 16 images (4 GPUs):
#   ADE20K_ROOT=... tools/train.py configs/mmseg/semantic-fpn_regnetx-800mf_4xb4-80k_ade20k-512x512.py
#       --cfg-options model.backbone.init_cfg.checkpoint=RegNetX-800MF_dds_8gpu.pyth
_base_ = ["./_base_/semantic-fpn_regnet.py", "./_base_/ade20k_80k.py"]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(arch="regnetx_800mf"),
    decode_head=dict(num_classes=150),
)
