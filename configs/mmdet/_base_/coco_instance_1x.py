_base_ = [
    "mmdet::_base_/datasets/coco_instance.py",
    "mmdet::_base_/schedules/schedule_1x.py",
    "mmdet::_base_/default_runtime.py",
]

# The folder with annotations/, train2017/ and val2017/: the environment variable COCO_ROOT, else data/coco.
data_root = "{{$COCO_ROOT:data/coco}}"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
val_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")
test_evaluator = dict(ann_file=data_root + "/annotations/instances_val2017.json")

optim_wrapper = dict(optimizer=dict(weight_decay=5e-5))
