"""tools/train_net.py as a user runs it: real images, resuming, several processes, Ctrl-C, and bad input."""

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("detectron2")

import d2_semantic
from conftest import relative
from d2_common import CONFIGS, TOOL, TORCHRUN, finish, overrides, start
from detectron2.config import get_cfg
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import default_argument_parser

from regnet_backbones.adapters.detectron2 import add_regnet_config
from regnet_backbones.adapters.detectron2.launch import run, setup
from regnet_backbones.adapters.detectron2.train import Trainer

SEMANTIC = Path(d2_semantic.__file__)
MASK_RCNN = CONFIGS / "mask_rcnn_regnety_4gf.yaml"
FASTER_RCNN = CONFIGS / "faster_rcnn_regnetx_400mf.yaml"
X200 = {"MODEL__REGNET__ARCH": "regnetx_200mf"}


@pytest.fixture(scope="module")
def datasets(coco_mini, tmp_path_factory) -> Path:
    """What DETECTRON2_DATASETS names: real images as coco/."""
    root = tmp_path_factory.mktemp("datasets")
    (root / "coco").symlink_to(coco_mini)
    return root


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def test_mask_rcnn_trains_saves_resumes_and_evaluates_on_real_images(datasets, tmp_path):
    def train(*flags: str, **options: object) -> str:
        words = overrides(OUTPUT_DIR=tmp_path, SOLVER__CHECKPOINT_PERIOD=1, **options)
        code, out, err = finish(start(TOOL, "--config-file", MASK_RCNN, *flags, *words, datasets=datasets))
        assert code == 0, err
        return out

    first = train(SOLVER__MAX_ITER=2, DATASETS__TEST="()")
    assert "Starting training from iteration 0" in first
    second = train("--resume", SOLVER__MAX_ITER=3)
    assert "Starting training from iteration 2" in second
    assert [line["iteration"] for line in metrics(tmp_path) if "total_loss" in line] == [1, 2]
    for task in ("bbox", "segm"):
        assert f"Evaluation results for {task}" in second
    assert len(re.findall(r"Average (?:Precision|Recall) .* = -?\d\.\d{3}", second)) == 2 * 12
    assert {"bbox/AP", "bbox/APl", "segm/AP50"} <= metrics(tmp_path)[-1].keys()

    third = train("--eval-only", MODEL__WEIGHTS=tmp_path / "model_final.pth")
    scores = [re.findall(r"copypaste: (\S+,\S+)$", text, re.MULTILINE) for text in (second, third)]
    assert scores[0] == scores[1] != []


def test_two_processes_of_the_tool_train_and_evaluate(datasets, tmp_path):
    words = overrides(OUTPUT_DIR=tmp_path, SOLVER__MAX_ITER=2, **X200)
    process = start(TOOL, "--config-file", FASTER_RCNN, *words, datasets=datasets, launcher=TORCHRUN)
    code, out, err = finish(process)
    assert code == 0, err
    assert "World size: 2" in out
    assert len(re.findall(r"Average (?:Precision|Recall) .* =", out)) == 12
    assert torch.load(tmp_path / "model_final.pth")["iteration"] == 1


SHAPES = CONFIGS / "regnet_shapes" / "mask_rcnn_regnetx_200mf.yaml"
AS_SEMANTIC = {
    "MODEL__META_ARCHITECTURE": "SemanticSegmentor", "MODEL__SEM_SEG_HEAD__NUM_CLASSES": 11,
    "MODEL__SEM_SEG_HEAD__CONVS_DIM": 32, "DATASETS__TRAIN": "('regnet_shapes_sem_seg_train',)",
    "DATASETS__TEST": "('regnet_shapes_sem_seg_val',)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "scores"), [({}, {"bbox/AP", "segm/AP"}), (AS_SEMANTIC, {"sem_seg/mIoU"})], ids=["coco", "ade"]
)
def test_the_embedded_set_trains_and_evaluates_in_both_layouts(options, scores, tmp_path):
    pytest.importorskip("shapely")
    from regnet_backbones.data.embedded import make

    make(tmp_path, num_train=4, num_val=2)
    words = overrides(OUTPUT_DIR=tmp_path / "out", SOLVER__MAX_ITER=2, **options)
    code, _, err = finish(start(TOOL, "--config-file", SHAPES, *words, datasets=tmp_path))
    assert code == 0, err
    assert scores <= metrics(tmp_path / "out")[-1].keys()
    ade = tmp_path / "regnet_shapes" / "ADEChallengeData2016"
    prepared = sorted(ade.glob("annotations_detectron2/*/*.png"))
    assert len(prepared) == (6 if options else 0)
    for path in prepared:
        raw = np.asarray(Image.open(ade / "annotations" / path.parent.name / path.name)).astype(int)
        assert np.array_equal(np.asarray(Image.open(path)), np.where(raw == 0, 255, raw - 1))


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("squares")
    d2_semantic.make(folder)
    return folder


def semantic(squares: Path, out: Path, *flags: str, launcher: tuple[str, ...] = (), **options: object) -> list[dict]:
    """The weights of every rank after training."""
    words = ["OUTPUT_DIR", str(out), *(str(w) for pair in options.items() for w in pair)]
    config = squares / "config.yaml"
    process = start(SEMANTIC, "--config-file", config, *flags, *words, datasets=squares, launcher=launcher)
    code, _, err = finish(process)
    assert code == 0, err
    return [torch.load(path) for path in sorted(out.glob("rank*.pth"))]


@pytest.fixture(scope="module")
def unbroken(squares, tmp_path_factory) -> Path:
    """The folder of four iterations in one process, with a checkpoint after the second."""
    folder = tmp_path_factory.mktemp("unbroken")
    semantic(squares, folder)
    return folder


@pytest.fixture(scope="module")
def alone(unbroken) -> dict[str, torch.Tensor]:
    return torch.load(unbroken / "rank0.pth")


@pytest.mark.parametrize(("launcher", "flags"), [(TORCHRUN, ()), ((), ("--num-gpus", "2"))], ids=["torchrun", "spawn"])
def test_two_processes_equal_one_of_the_same_total_batch(launcher, flags, alone, squares, tmp_path):
    ranks = semantic(squares, tmp_path, *flags, launcher=launcher)
    assert len(ranks) == 2
    for name, tensor in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert tensor.dtype == torch.float64
        assert relative(ranks[0][name], tensor) < 1e-9, name


def test_a_resumed_run_equals_an_unbroken_one(unbroken, alone, squares, tmp_path):
    (tmp_path / "model_0000001.pth").symlink_to(unbroken / "model_0000001.pth")
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    resumed = semantic(squares, tmp_path, "--resume")[0]
    assert [line["iteration"] for line in metrics(tmp_path)] == [3]
    assert [name for name, tensor in alone.items() if not torch.equal(resumed[name], tensor)] == []


@pytest.mark.parametrize("flags", [(), ("--num-gpus", "2")], ids=["one", "two processes"])
def test_ctrl_c_leaves_a_checkpoint_to_resume_from(flags, squares, tmp_path):
    words = ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 100_000, "SOLVER.CHECKPOINT_PERIOD", 100_000]
    process = start(SEMANTIC, "--config-file", squares / "config.yaml", *flags, *words, datasets=squares)
    deadline = time.monotonic() + 120
    while not (tmp_path / "metrics.json").exists() or not (tmp_path / "metrics.json").stat().st_size:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    code, out, err = finish(process, timeout=60)
    assert code == 130, err
    done = int(re.search(r"stopped after iteration (\d+), saved to", out)[1])
    assert (tmp_path / "last_checkpoint").read_text() == f"model_{done:07d}.pth"
    assert torch.load(tmp_path / f"model_{done:07d}.pth")["iteration"] == done
    assert "Traceback" not in err


@pytest.fixture
def one_thread():
    """Layers this small are slower on several threads, on a busy machine ten times so."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_losses_halve_on_four_images_and_every_gradient_flows(coco_mini, tmp_path):
    name = f"coco_four_{tmp_path.name}"
    document = json.loads((coco_mini / "annotations" / "instances_train2017.json").read_text())
    annotated = {annotation["image_id"] for annotation in document["annotations"] if not annotation["iscrowd"]}
    document["images"] = [image for image in document["images"] if image["id"] in annotated][:4]
    kept = {image["id"] for image in document["images"]}
    document["annotations"] = [item for item in document["annotations"] if item["image_id"] in kept]
    (tmp_path / "four.json").write_text(json.dumps(document))
    register_coco_instances(name, {}, str(tmp_path / "four.json"), str(coco_mini / "train2017"))

    options = {
        "OUTPUT_DIR": tmp_path / "out", "DATASETS__TRAIN": (name,), "DATASETS__TEST": "()",
        "MODEL__BACKBONE__FREEZE_AT": 0, "MODEL__REGNET__NORM": "BN", "INPUT__RANDOM_FLIP": "none",
        "SOLVER__OPTIMIZER": "ADAMW", "SOLVER__BASE_LR": 0.001, "SOLVER__WARMUP_ITERS": 5,
        "SOLVER__MAX_ITER": 45, "SOLVER__IMS_PER_BATCH": 4, "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 64,
    }  # fmt: skip
    cfg = setup(
        default_argument_parser().parse_args(["--config-file", str(FASTER_RCNN), *overrides(**options, **X200)])
    )
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.train()
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert len(losses) == 45
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    silent = [name for name, p in trainer.model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(("name", "kind"), [("SGD", torch.optim.SGD), ("AdamW", torch.optim.AdamW)])
@pytest.mark.parametrize(("clip", "expected"), [("full_model", (0.3, 0.4)), ("norm", (0.5, 0.5)), (None, (3, 4))])
def test_optimizers_and_clipping(name, kind, clip, expected):
    cfg = get_cfg()
    add_regnet_config(cfg)
    cfg.merge_from_list(["SOLVER.OPTIMIZER", name, "SOLVER.WEIGHT_DECAY", 0.25])
    cfg.merge_from_list(["SOLVER.CLIP_GRADIENTS.ENABLED", clip is not None, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5])
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip or "value"
    model = torch.nn.Linear(1, 1)
    optimizer = Trainer.build_optimizer(cfg, model)
    assert isinstance(optimizer, kind)
    assert optimizer.param_groups[0]["weight_decay"] == 0.25
    model.weight.grad, model.bias.grad = torch.full((1, 1), 3.0), torch.full((1,), 4.0)
    optimizer.step()
    assert (model.weight.grad.item(), model.bias.grad.item()) == pytest.approx(expected, rel=1e-4)


def told(*arguments: object, datasets: Path | str) -> str:
    """The sentence on stderr of a tool that must fail; anything more than one sentence is a fault."""
    code, _, err = finish(start(TOOL, *arguments, datasets=datasets))
    assert code == 1
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("error: ")]  # beside warnings of torch's own
    assert len(lines) == 1, err
    return lines[0]


def test_a_missing_data_set(tmp_path):
    sentence = told("--config-file", FASTER_RCNN, *overrides(OUTPUT_DIR=tmp_path / "out"), datasets=tmp_path)
    looked_for = tmp_path / "coco" / "annotations" / "instances_train2017.json"
    assert f"coco_2017_train is not there: looked for {looked_for}" in sentence
    assert "set DETECTRON2_DATASETS to the folder that holds coco/" in sentence
    assert not (tmp_path / "out").exists()


def test_annotations_that_are_not_json(datasets, tmp_path):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (tmp_path / "coco" / split).symlink_to(datasets / "coco" / split)
        (tmp_path / "coco" / "annotations" / f"instances_{split}.json").write_text("<html>404</html>")
    sentence = told("--config-file", FASTER_RCNN, *overrides(OUTPUT_DIR=tmp_path / "out"), datasets=tmp_path)
    assert re.search(r"annotations of coco_2017_train, \S+instances_train2017.json, are not JSON", sentence)


def test_weights_that_do_not_fit(datasets, tmp_path):
    torch.save({"stem.conv.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "weights.pth")
    words = overrides(OUTPUT_DIR=tmp_path / "out", MODEL__WEIGHTS=tmp_path / "weights.pth", **X200)
    sentence = told("--config-file", FASTER_RCNN, *words, datasets=datasets)
    assert "does not fit the backbone RegNetX-200MF: 219 of its 220 tensors are missing" in sentence
    assert "stem.conv.weight is (16, 3, 3, 3), not (32, 3, 3, 3)" in sentence


WRONG = {
    "MODEL.REGNET.ARCH regnety_5gf": "no RegNet called 'regnety_5gf'",
    "MODEL.REGNET.OUT_FEATURES ['s9']": "has no feature 's9'; its features are stem, s1, s2, s3, s4",
    "INPUT.MIN_SIZE_TEST 16": "INPUT.MIN_SIZE_TEST 16 is too small: the backbone's deepest feature has stride 32",
    "INPUT.MIN_SIZE_TRAIN (24,64)": "INPUT.MIN_SIZE_TRAIN 24 is too small",
    "MODEL.WEIGHTS nowhere.pth": "no weight file 'nowhere.pth'",
    "MODEL.REGNET.ARCHS x": "Non-existent key: MODEL.REGNET.ARCHS",
    "MODEL.REGNET.ARCH": "overrides are pairs of KEY VALUE, but 'MODEL.REGNET.ARCH' stands alone",
    "DATASETS.TRAIN ('coco_2071_train',)": "no data set 'coco_2071_train'; the nearest registered ones are coco_2017",
    "DATASETS.TRAIN ()": "DATASETS.TRAIN names no data set",
    "SOLVER.AMP.ENABLED True": "SOLVER.AMP.ENABLED needs a GPU",
    "SOLVER.OPTIMIZER LION": "choose SGD or ADAMW",
    "MODEL.ROI_HEADS.NUM_CLASSES 8": "NUM_CLASSES is 8, but coco_2017_train has 80 classes",
    "--num-gpus 2 MODEL.FPN.NORM SyncBN": "MODEL.FPN.NORM is SyncBN, which does not run on several CPU processes",
    "--num-gpus 3": "SOLVER.IMS_PER_BATCH 2 cannot be shared by 3 processes",
    "--config-file nowhere.yaml": "no config file 'nowhere.yaml'",
}


@pytest.fixture
def registered(datasets, monkeypatch):
    """COCO's builtin names point where the real images are; Detectron2 looked at the environment at its import."""
    from detectron2.data import MetadataCatalog

    for name, split in (("coco_2017_train", "train2017"), ("coco_2017_val", "val2017")):
        meta = MetadataCatalog.get(name)
        monkeypatch.setitem(meta.__dict__, "image_root", str(datasets / "coco" / split))
        monkeypatch.setitem(meta.__dict__, "json_file", str(datasets / f"coco/annotations/instances_{split}.json"))


@pytest.mark.parametrize("words", WRONG)
def test_wrong_options_are_told_in_one_sentence_before_anything_is_built(words, registered, tmp_path, capsys):
    flags = words.split()[:2] if words.startswith("--") else []
    given = overrides(OUTPUT_DIR=tmp_path / "out", **X200) + words.split()[len(flags) :]
    assert run(["--config-file", str(FASTER_RCNN), *flags, *given]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert WRONG[words] in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
