_base_ = ["./ade20k_80k.py"]

from regnet_backbones.data.embedded import ADE_CLASSES

# The folder that regnet_backbones.data.embedded.make() returns: REGNET_SHAPES_ROOT, else data/regnet_shapes.
data_root = "{{$REGNET_SHAPES_ROOT:data/regnet_shapes}}/ADEChallengeData2016"
num_classes = len(ADE_CLASSES)
crop_size = (192, 192)
# ADE20KDataset itself knows ADE20K's 150 classes only.
shapes = dict(
    type="BaseSegDataset",
    data_root=data_root,
    img_suffix=".jpg",
    seg_map_suffix=".png",
    reduce_zero_label=True,
    metainfo=dict(classes=ADE_CLASSES, palette=[[20 * i, 255 - 20 * i, 97 * i % 256] for i in range(num_classes)]),
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomResize", scale=(288, 192), ratio_range=(0.8, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=crop_size, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(288, 192), keep_ratio=True),
    dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="PackSegInputs"),
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **shapes))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **shapes))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [dict(type="PolyLR", eta_min=0.0, power=0.9, begin=0, end=1000, by_epoch=False)]
train_cfg = dict(max_iters=1000, val_interval=250)
default_hooks = dict(checkpoint=dict(interval=250))
