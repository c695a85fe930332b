_base_ = ["mmdet::_base_/models/faster-rcnn_r50_fpn.py", "./regnet.py"]

model = dict(
    type="DeriveChannels",
    model_type="FasterRCNN",
    data_preprocessor=_base_.pycls_pixels,
    backbone=dict(_delete_=True, **_base_.regnet),
    neck=dict(in_channels=None),
)
