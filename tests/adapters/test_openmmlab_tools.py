"""Training and evaluating on real images, by the frameworks' own scripts and by ours."""

from __future__ import annotations

import json
import pickle
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import relative
from mm_common import framework_tool, our_tool, run, small, start
from PIL import Image
from torch import nn

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmengine.registry import DefaultScope

from regnet_backbones import RegNetClassifier, UserError
from regnet_backbones.adapters.openmmlab import CPUDistributedDataParallel
from regnet_backbones.adapters.openmmlab.tools import main


@pytest.fixture(autouse=True)
def default_scope():
    """A run in this process leaves its framework's scope behind, where other tests would build their models."""
    before = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(before)


COCO_LINE = re.compile(r"Average (?:Precision|Recall)\s+\(A[PR]\) @\[.*\] = -?\d\.\d+")


def test_mmdets_own_scripts_train_resume_and_evaluate_ours(coco_mini, tmp_path):
    config, train = small("mmdet", tmp_path), framework_tool("mmdet", "train")
    arguments = (config, "--work-dir", tmp_path / "work")
    first = run(train, *arguments, cwd=tmp_path, COCO_ROOT=str(coco_mini))
    assert "Epoch(train) [1][2/2]" in first
    assert (tmp_path / "work" / "epoch_1.pth").is_file()
    assert len(COCO_LINE.findall(first)) == 24, "12 numbers of boxes, 12 of masks"
    again = run(
        train, *arguments, "--resume", "--cfg-options", "train_cfg.max_epochs=2", cwd=tmp_path, COCO_ROOT=str(coco_mini)
    )
    assert "resumed epoch: 1, iter: 2" in again
    assert "Epoch(train) [1]" not in again
    assert "Epoch(train) [2][2/2]" in again
    checkpoint = tmp_path / "work" / "epoch_2.pth"
    ours = run(
        our_tool("test"), config, checkpoint, "--work-dir", tmp_path / "work", "--out", tmp_path / "found.pkl",
        "--cfg-options", f"data_root={coco_mini}", cwd=tmp_path,
    )  # fmt: skip
    assert len(COCO_LINE.findall(ours)) == 24
    assert COCO_LINE.findall(ours) == COCO_LINE.findall(again)
    assert len(pickle.loads((tmp_path / "found.pkl").read_bytes())) == 2
    _detects(config, checkpoint, sorted((coco_mini / "val2017").glob("*.jpg"))[0])


def _detects(config: Path, checkpoint: Path, image: Path) -> None:
    from mmdet.apis import inference_detector, init_detector

    found = inference_detector(init_detector(str(config), str(checkpoint), device="cpu"), str(image)).pred_instances
    assert len(found) == 10
    assert found.masks.shape[1:] == tuple(np.asarray(Image.open(image)).shape[:2])


def test_mmsegs_own_scripts_train_resume_and_evaluate_ours(ade_mini, tmp_path):
    config, train = small("mmseg", tmp_path), framework_tool("mmseg", "train")
    arguments = (config, "--work-dir", tmp_path / "work")
    first = run(train, *arguments, cwd=tmp_path, ADE20K_ROOT=str(ade_mini))
    assert re.search(r"Iter\(train\) \[2/2\]", first)
    assert re.search(r"mIoU: \d+\.\d+", first)
    options = ("train_cfg.max_iters=4", "train_cfg.val_interval=4")
    again = run(train, *arguments, "--resume", "--cfg-options", *options, cwd=tmp_path, ADE20K_ROOT=str(ade_mini))
    assert "resumed epoch: 0, iter: 2" in again
    assert re.search(r"Iter\(train\) \[3/4\]", again)
    checkpoint = tmp_path / "work" / "iter_4.pth"
    tested = run(
        framework_tool("mmseg", "test"), config, checkpoint, "--work-dir", tmp_path / "work",
        cwd=tmp_path, ADE20K_ROOT=str(ade_mini),
    )  # fmt: skip
    assert re.findall(r"mIoU: \d+\.\d+", tested) == re.findall(r"mIoU: \d+\.\d+", again)
    _segments(config, checkpoint, sorted((ade_mini / "images/validation").glob("*.jpg"))[0])


def _segments(config: Path, checkpoint: Path, image: Path) -> None:
    from mmseg.apis import inference_model, init_model

    found = inference_model(init_model(str(config), str(checkpoint), device="cpu"), str(image)).pred_sem_seg
    assert tuple(found.shape) == tuple(np.asarray(Image.open(image)).shape[:2])


# Everything in float64, without augmentation, dropout and norms over a batch; every process keeps its weights.
EXACT = """
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
torch.set_default_dtype(torch.float64)

@HOOKS.register_module()
class KeepWeights(Hook):
    def before_train(self, runner, name="begun"):
        model = getattr(runner.model, "module", runner.model)
        torch.save(model.state_dict(), f"{runner.work_dir}/{name}{runner.rank}.pth")

    def after_train(self, runner):
        self.before_train(runner, "rank")
"""
EXACT_CONFIG = """
custom_imports = dict(imports=["regnet_backbones.adapters.openmmlab", "exact"], allow_failed_imports=False)
custom_hooks = [dict(type="KeepWeights")]
train_dataloader["sampler"] = dict(type="InfiniteSampler", shuffle=False)
train_dataloader["dataset"]["pipeline"].pop(2)
model["backbone"]["norm_cfg"] = dict(type="FrozenBN")
model["decode_head"] = dict(norm_cfg=dict(_delete_=True, type="GN", num_groups=32), dropout_ratio=0.0)
model["data_preprocessor"] = dict(size=(64, 64))
train_cfg = dict(max_iters=3, val_interval=100)
randomness = dict(seed=1)
"""


def test_two_processes_equal_one_with_the_same_batch(tmp_path):
    rng = np.random.default_rng(0)
    for kind, shape, low, suffix in (("images", (64, 64, 3), 0, "jpg"), ("annotations", (64, 64), 1, "png")):
        for split in ("training", "validation"):
            (tmp_path / kind / split).mkdir(parents=True)
            for i in range(8):
                pixels = np.kron(rng.integers(low, 151, (8, 8, *shape[2:])), np.ones((8, 8, *[1] * (len(shape) - 2))))
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / kind / split / f"{i}.{suffix}")
    (tmp_path / "exact.py").write_text(EXACT)
    config = small("mmseg", tmp_path, EXACT_CONFIG)
    for name, processes, batch in (("two", 2, 2), ("one", 0, 4)):
        run(
            our_tool("train"), config, "--work-dir", tmp_path / name, "--cfg-options", f"data_root={tmp_path}",
            f"train_dataloader.batch_size={batch}", cwd=tmp_path, processes=processes, PYTHONPATH=str(tmp_path),
        )  # fmt: skip
    one, first, second = (torch.load(tmp_path / n) for n in ("one/rank0.pth", "two/rank0.pth", "two/rank1.pth"))
    assert all(tensor.dtype == torch.float64 for tensor in one.values())
    for name, tensor in one.items():
        assert torch.equal(first[name], second[name]), name
        assert relative(first[name], tensor) < 1e-9, name
    moved = [name for name, tensor in one.items() if "weight" in name and ".bn" not in name and tensor.ndim == 4]
    begun = torch.load(tmp_path / "one/begun0.pth")
    assert all(relative(one[name], begun[name]) > 1e-7 for name in moved), "the steps changed them"


def test_sync_bn_on_several_cpu_processes_is_told():
    model = nn.ModuleDict({"backbone": nn.SyncBatchNorm(4), "decode_head": nn.Conv2d(3, 3, 1)})
    with pytest.raises(UserError, match=r"SyncBN .* set model.backbone.norm_cfg.type to BN, GN or LN"):
        CPUDistributedDataParallel(model)


def test_interrupted_training_says_how_to_go_on(ade_mini, tmp_path):
    config = small("mmseg", tmp_path)
    arguments = ("--cfg-options", f"data_root={ade_mini}", "train_cfg.max_iters=100000")
    process = start(our_tool("train"), config, *arguments, cwd=tmp_path)
    for line in process.stdout:
        if "Iter(train)" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1].startswith("interrupted; the same command with --resume")
    assert "Traceback" not in rest


def refused(capsys, *arguments: object, task: str = "train") -> str:
    """The one sentence of a run that fails."""
    assert main(task, list(map(str, arguments))) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, lines
    return lines[0]


def test_missing_or_foreign_config(capsys, tmp_path):
    assert "name a config" in refused(capsys)
    assert "there is no config absent.py" in refused(capsys, "absent.py")
    other = tmp_path / "other.py"
    other.write_text("default_scope = 'mmpose'")
    assert "neither MMDetection nor MMSegmentation" in refused(capsys, other)
    other.write_text("model = dict(")
    assert "cannot be read: SyntaxError" in refused(capsys, other)


@pytest.mark.parametrize("framework", ["mmdet", "mmseg"])
def test_missing_data_set(framework, capsys, tmp_path):
    config = small(framework, tmp_path)
    told = refused(capsys, config, "--cfg-options", f"data_root={tmp_path / 'nowhere'}")
    assert f"looked for the folder {tmp_path / 'nowhere'}" in told
    assert "--cfg-options data_root=FOLDER" in told
    (tmp_path / "nowhere").mkdir()
    told = refused(capsys, config, "--cfg-options", f"data_root={tmp_path / 'nowhere'}")
    assert "instances_train2017.json" in told if framework == "mmdet" else "images/training" in told


def test_missing_checkpoint_and_amp_without_gpu(capsys, tmp_path, ade_mini):
    config, data = small("mmseg", tmp_path), ("--cfg-options", f"data_root={ade_mini}")
    assert "there is no checkpoint gone.pth" in refused(capsys, config, "gone.pth", *data, task="test")
    if not torch.cuda.is_available():
        assert "--amp needs a GPU" in refused(capsys, config, "--amp", *data)


def test_annotation_that_is_not_json(capsys, tmp_path):
    for folder in ("annotations", "train2017", "val2017"):
        (tmp_path / folder).mkdir()
    (tmp_path / "annotations/instances_train2017.json").write_text("<html>not found</html>")
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps({}))
    arguments = ("--work-dir", tmp_path / "work", "--cfg-options", f"data_root={tmp_path}")
    told = refused(capsys, small("mmdet", tmp_path), *arguments)
    assert f"{tmp_path}/annotations/instances_train2017.json is not JSON" in told


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("model.backbone.arch=regnety_5gf", ["regnety_5gf", "RegNetY-"]),
        ("model.backbone.out_indices=(0,7)", ["out_indices", "7", "0 to 3"]),
        ("model.backbone.init_cfg.checkpoint=WEIGHTS", ["s1.b1.proj.weight is (32, 32, 1, 1), not (24, 32, 1, 1)"]),
        ("model.backbone.init_cfg.checkpoint=gone.pth", ["gone.pth", "cannot be read"]),
        ("model.data_preprocessor.size=(16,16)", ["16x16 pixels, too small", "32x32"]),
    ],
    ids=["arch", "out_indices", "weights", "no-weights", "image"],
)
def test_options_that_do_not_fit(option, words, capsys, tmp_path, ade_mini):
    weights = tmp_path / "other.pth"
    torch.save(RegNetClassifier("regnetx_400mf", num_classes=2).state_dict(), weights)
    config = small("mmseg", tmp_path, 'train_dataloader["dataset"]["pipeline"][2]["crop_size"] = (16, 16)\n')
    arguments = ("--work-dir", tmp_path / "work", "--cfg-options", f"data_root={ade_mini}")
    told = refused(capsys, config, *arguments, option.replace("WEIGHTS", str(weights)))
    assert all(word in told for word in words), told


def test_the_script_itself_ends_with_one_sentence(tmp_path):
    output = run(our_tool("train"), "absent.py", status=1, cwd=tmp_path)
    assert output.strip().splitlines()[-1].startswith("error: there is no config absent.py")
    assert "Traceback" not in output
    assert "CONFIG" in run(our_tool("test"), "--help", cwd=tmp_path)
