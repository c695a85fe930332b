# The structure of Detectron2's new baselines (SyncBN everywhere, two convolutions in the RPN, four and one FC in the
# box head), for their checkpoints converted with --whole-detector --to mmdet.
_base_ = ["./mask-rcnn_regnety-4gf_fpn_1x_coco.py"]

norm = dict(type="SyncBN", requires_grad=True)
model = dict(
    backbone=dict(frozen_stages=-1, norm_cfg=norm, norm_eval=False),
    neck=dict(norm_cfg=norm),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type="Shared4Conv1FCBBoxHead", conv_out_channels=256, norm_cfg=norm),
        mask_head=dict(norm_cfg=norm),
    ),
)
