"""What the OpenMMLab tests of the tools share: their scripts, small configs, processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

CONFIGS = {
    "mmdet": ROOT / "configs/mmdet/mask-rcnn_regnety-4gf_fpn_1x_coco.py",
    "mmseg": ROOT / "configs/mmseg/semantic-fpn_regnetx-800mf_4xb4-80k_ade20k-512x512.py",
}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": "-1"}
IN_PROCESS = "num_workers=0, persistent_workers=False"
SMALL = {
    # two steps of two images an epoch, all parts of the detector kept but few proposals
    "mmdet": f"""
_base_ = {str(CONFIGS["mmdet"])!r}
size = dict(type="Resize", scale=(320, 200), keep_ratio=True)
train_dataloader = dict({IN_PROCESS}, dataset=dict(indices=4, pipeline=[
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True), size,
    dict(type="RandomFlip", prob=0.5), dict(type="PackDetInputs")]))
val_dataloader = dict({IN_PROCESS}, dataset=dict(indices=2, pipeline=[
    dict(type="LoadImageFromFile"), size, dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"))]))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1)
model = dict(
    backbone=dict(arch="regnetx_200mf"),
    roi_head=dict(bbox_head=dict(fc_out_channels=64), mask_head=dict(num_convs=1)),
    train_cfg=dict(rpn_proposal=dict(max_per_img=50), rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=10)))
default_hooks = dict(logger=dict(interval=1))
""",
    "mmseg": f"""
_base_ = {str(CONFIGS["mmseg"])!r}
train_dataloader = dict(batch_size=2, {IN_PROCESS}, dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", reduce_zero_label=True),
    dict(type="RandomCrop", crop_size=(128, 128)), dict(type="PackSegInputs")]))
val_dataloader = dict({IN_PROCESS}, dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(256, 128), keep_ratio=True),
    dict(type="LoadAnnotations", reduce_zero_label=True), dict(type="PackSegInputs")]))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
model = dict(backbone=dict(arch="regnetx_200mf"), data_preprocessor=dict(size=(128, 128)))
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
""",
}


def small(framework: str, folder: Path, more: str = "") -> Path:
    """A child of our config that a CPU runs in seconds."""
    path = folder / f"{framework}_small.py"
    path.write_text(SMALL[framework] + more)
    return path


def framework_tool(framework: str, task: str) -> Path:
    """The framework's own script, as its package carries it."""
    return Path(importlib.util.find_spec(framework).origin).parent / ".mim" / "tools" / f"{task}.py"


def our_tool(task: str) -> Path:
    return ROOT / "tools" / f"{task}.py"


def start(tool: Path, *arguments: object, cwd: Path, processes: int = 0, **environment: str) -> subprocess.Popen:
    """Starts a tool, by torchrun with ``processes``, somewhere that is not the project."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    return subprocess.Popen(
        [sys.executable, *launcher, str(tool), *map(str, arguments)],
        cwd=cwd, env=os.environ | ENVIRONMENT | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def run(tool: Path, *arguments: object, status: int = 0, **options) -> str:
    """What a tool printed; it must end with ``status``."""
    process = start(tool, *arguments, **options)
    output = process.communicate(timeout=500)[0]
    assert process.returncode == status, output[-3000:]
    return output
