# MMEngine's "mmseg::" knows MMSegmentation by one distribution name only, which the maintained fork does not have.
_base_ = [
    __import__("mmseg").__path__[0] + "/.mim/configs/_base_/" + name
    for name in ("datasets/ade20k.py", "schedules/schedule_80k.py", "default_runtime.py")
]

# The folder with images/ and annotations/: the environment variable ADE20K_ROOT, else MMSegmentation's place.
data_root = "{{$ADE20K_ROOT:data/ade/ADEChallengeData2016}}"
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))

optim_wrapper = dict(optimizer=dict(weight_decay=5e-5))
