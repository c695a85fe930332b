_base_ = ["./coco_instance_1x.py"]

from regnet_backbones.data.embedded import THING_CLASSES

# The folder that regnet_backbones.data.embedded.make() returns: REGNET_SHAPES_ROOT, else data/regnet_shapes.
data_root = "{{$REGNET_SHAPES_ROOT:data/regnet_shapes}}/coco"
metainfo = dict(classes=THING_CLASSES)
num_classes = len(THING_CLASSES)

resize = dict(type="Resize", scale=(288, 192), keep_ratio=True)
meta_keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    resize,
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    resize,
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=meta_keys),
]
train_dataloader = dict(batch_size=8, dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")
test_evaluator = val_evaluator

# A network from scratch on small images: AdamW, in place of SGD for a large pretrained one.
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=0.05))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
