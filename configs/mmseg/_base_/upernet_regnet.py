# MMEngine's "mmseg::" knows MMSegmentation by one distribution name only, which the maintained fork does not have.
_base_ = [__import__("mmseg").__path__[0] + "/.mim/configs/_base_/models/upernet_r50.py", "./regnet.py"]

model = dict(
    type="DeriveChannels",
    model_type="EncoderDecoder",
    pretrained=None,
    data_preprocessor=_base_.pycls_pixels,
    backbone=dict(_delete_=True, **_base_.regnet),
    decode_head=dict(in_channels=None),
    auxiliary_head=dict(in_channels=None),
)
