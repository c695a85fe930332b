# Mask R-CNN from scratch on the embedded data set, to try things out on a CPU:
#   python -c "from regnet_backbones.data.embedded import make; make('data')"
#   tools/train.py configs/mmdet/mask-rcnn_regnetx-200mf_fpn_1x_regnet-shapes.py
_base_ = ["./_base_/mask-rcnn_regnet_fpn.py", "./_base_/regnet_shapes.py"]

model = dict(
    backbone=dict(arch="regnetx_200mf", frozen_stages=-1, norm_eval=False),
    roi_head=dict(
        bbox_head=dict(num_classes=_base_.num_classes, fc_out_channels=256),
        mask_head=dict(num_classes=_base_.num_classes),
    ),
)
