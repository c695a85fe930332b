"""timm: a plain state dict or safetensors. ``features_only`` has the same names without a head; its two wrapping
classes put ``model.`` or ``body.`` before them."""

from __future__ import annotations

from . import Format

FORMAT = Format(
    name="timm",
    title="timm's RegNet",
    table={
        "stem.conv": "stem.conv",
        "stem.bn": "stem.bn",
        "s{i}.b{j}.downsample.conv": "s{i}.b{j}.proj",
        "s{i}.b{j}.downsample.bn": "s{i}.b{j}.bn",
        "s{i}.b{j}.conv1.conv": "s{i}.b{j}.f.a",
        "s{i}.b{j}.conv1.bn": "s{i}.b{j}.f.a_bn",
        "s{i}.b{j}.conv2.conv": "s{i}.b{j}.f.b",
        "s{i}.b{j}.conv2.bn": "s{i}.b{j}.f.b_bn",
        "s{i}.b{j}.se.fc1": "s{i}.b{j}.f.se.f_ex.0",
        "s{i}.b{j}.se.fc2": "s{i}.b{j}.f.se.f_ex.2",
        "s{i}.b{j}.conv3.conv": "s{i}.b{j}.f.c",
        "s{i}.b{j}.conv3.bn": "s{i}.b{j}.f.c_bn",
        "final_conv.conv": None,
        "final_conv.bn": None,
    },
    reasons={
        "final_conv.conv": "RegNetZ's last 1x1 belongs to the classifier, not to the features",
        "final_conv.bn": "RegNetZ's last 1x1 belongs to the classifier, not to the features",
    },
    head="head.fc",
    look_alikes={
        "stages.0.0.conv1_1x1.conv": "the other RegNetZ of timm (regnetz_b16, c16, d8, d32, e8 in its byobnet)",
        "s1.b1.norm1": "timm's RegNetV, whose norms come before the convolutions",
    },
)
