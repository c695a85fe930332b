# Semantic FPN from scratch on the embedded data set, to try things out on a CPU:
#   python -c "from regnet_backbones.data.embedded import make; make('data')"
#   tools/train.py configs/mmseg/semantic-fpn_regnetx-200mf_1xb8-1k_regnet-shapes-192x192.py
_base_ = ["./_base_/semantic-fpn_regnet.py", "./_base_/regnet_shapes.py"]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    backbone=dict(arch="regnetx_200mf"),
    decode_head=dict(num_classes=_base_.num_classes),
)
