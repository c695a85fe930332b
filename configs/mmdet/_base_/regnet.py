# What every RegNet shares in MMDetection. The channels of necks are never written: DeriveChannels fills them in when
# the model is built, so `--cfg-options model.backbone.arch=...` is all that another RegNet needs.
custom_imports = dict(imports=["regnet_backbones.adapters.openmmlab"], allow_failed_imports=False)

# Pixels as pycls trained on them: BGR.
pycls_pixels = dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False)

# Fine-tuning: the stem, the first stage and all norms' statistics stay as pretrained.
regnet = dict(
    type="RegNetBackbone",
    out_indices=(0, 1, 2, 3),
    frozen_stages=1,
    norm_cfg=dict(type="BN", requires_grad=True),
    norm_eval=True,
    init_cfg=dict(type="Pretrained", checkpoint=""),
)
