# What every RegNet shares in MMSegmentation. The channels of necks and heads are never written: DeriveChannels fills
# them in when the model is built, so `--cfg-options model.backbone.arch=...` is all that another RegNet needs.
custom_imports = dict(imports=["regnet_backbones.adapters.openmmlab"], allow_failed_imports=False)

# Pixels as pycls trained on them: BGR.
pycls_pixels = dict(mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], bgr_to_rgb=False)

# Norms learn on, over all GPUs' images together; a single process falls back to BN by itself.
regnet = dict(
    type="RegNetBackbone",
    out_indices=(0, 1, 2, 3),
    norm_cfg=dict(type="SyncBN", requires_grad=True),
    norm_eval=False,
    init_cfg=dict(type="Pretrained", checkpoint=""),
)
