"""Whole detectors, converted: the same pixels in, the same boxes, scores and masks out.

The images are resized once, before either framework sees them: Detectron2 resizes with PIL and MMDetection with
OpenCV, whose pixels differ enough to change detections. The tests are about the networks.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT, randomize, relative

from regnet_backbones import convert
from regnet_backbones.errors import UserError

peers = pytest.importorskip("detector_peers", reason="needs detectron2 and mmdet")

ARCHS = {"faster_rcnn": "regnetx_200mf", "mask_rcnn": "regnety_200mf", "retinanet": "regnetx_200mf"}
DETECTORS = list(ARCHS)
# With RetinaNet's ReLU before P7, and without; the others have no P7.
CASES = [("faster_rcnn", None), ("mask_rcnn", None), ("retinanet", True), ("retinanet", False)]
RETINANET_WITHOUT_RELU = ("MODEL.FPN.RELU_BEFORE_P7", False)


@pytest.fixture(scope="module")
def images(coco_mini: Path) -> list[torch.Tensor]:
    return peers.pictures(coco_mini, 2)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def saved(model: torch.nn.Module, path: Path) -> Path:
    """As each framework's own training writes it."""
    key = "state_dict" if hasattr(model, "test_step") else "model"
    torch.save({key: model.state_dict(), "iteration": 7}, path)
    return path


def tensors(path: Path) -> dict[str, torch.Tensor]:
    data = torch.load(path, weights_only=True)
    return data.get("state_dict", data.get("model"))


def by_ratio(output: torch.Tensor, per_anchor: int) -> torch.Tensor:
    """RetinaNet's nine anchors of a cell, from sizes first to ratios first."""
    n, _, h, w = output.shape
    return output.view(n, 3, 3, per_anchor, h, w).transpose(1, 2).reshape(output.shape)


def assert_same_heads(d2: torch.nn.Module, mm: torch.nn.Module, detector: str, image: torch.Tensor) -> None:
    """On the same levels, which also shows that a difference of the heads is theirs."""
    levels, regions = peers.pyramid(d2, image), peers.regions(image)
    regions = regions.to(levels[0].dtype)
    tolerance = 1e-4 if levels[0].dtype == torch.float32 else 1e-9
    for a, b in zip(levels, peers.pyramid(mm, image), strict=True):
        assert relative(a, b) < tolerance
    ours = peers.head_outputs(mm, detector, levels, regions)
    for name, outputs in peers.head_outputs(d2, detector, levels, regions).items():
        assert len(outputs) == len(ours[name]) > 0
        for a, b in zip(outputs, ours[name], strict=True):
            if detector == "retinanet":
                a = by_ratio(a, peers.CLASSES if name == "head.cls_score" else 4)
            assert relative(a, b) < tolerance, name


def assert_same_detections(a: Any, b: Any) -> None:
    """Whatever the order: two scores that differ by rounding may change places."""
    assert len(a.boxes) == len(b.boxes) >= 10
    assert a.scores.max() > 0.5
    distance = (a.boxes[:, None] - b.boxes[None]).abs().amax(2)
    distance[a.classes[:, None] != b.classes[None]] = torch.inf
    distance[(a.scores[:, None] - b.scores[None]).abs() >= 1e-4] = torch.inf
    nearest, partner = distance.min(1)
    assert nearest.max() < 0.01
    assert len(set(partner.tolist())) == len(partner)
    if a.masks is not None:
        theirs = b.masks[partner]
        areas = (a.masks | theirs).sum((1, 2))
        assert areas.max() > 100
        assert ((a.masks & theirs).sum((1, 2))[areas > 0] / areas[areas > 0]).min() > 0.99


def assert_equal_models(d2: torch.nn.Module, mm: torch.nn.Module, detector: str, images: list) -> None:
    for image in images:
        assert_same_heads(d2, mm, detector, image)
        assert_same_detections(peers.detect(d2, image), peers.detect(mm, image))


@pytest.mark.parametrize(("detector", "relu"), CASES)
def test_detectron2_to_mmdetection_and_back(detector: str, relu: bool | None, images: list, tmp_path: Path) -> None:
    options = {"relu_before_p7": relu} if detector == "retinanet" else {}
    d2_options = RETINANET_WITHOUT_RELU if relu is False else ()
    d2 = peers.calibrate(peers.small_detectron2(detector, ARCHS[detector], *d2_options), detector, images[0])
    source = saved(d2, tmp_path / "d2.pth")
    report = convert(source, tmp_path / "mm.pth", to="mmdet", whole_detector=True, settings=options)
    switched = relu is True
    assert report.config_lines == (["model.neck.relu_before_extra_convs=True"] if switched else [])
    mm = peers.small_mmdetection(
        detector, ARCHS[detector], {"model.neck.relu_before_extra_convs": True} if switched else {}
    )
    mm.load_state_dict(tensors(tmp_path / "mm.pth"), strict=True)
    assert_equal_models(d2, mm, detector, images)

    # The setting travels in the metadata, so the way back needs none.
    back = convert(tmp_path / "mm.pth", tmp_path / "back.pth", to="detectron2", whole_detector=True)
    assert back.config_lines == ([] if relu is not False else ["MODEL.FPN.RELU_BEFORE_P7 False"])
    returned = tensors(tmp_path / "back.pth")
    # The config's FrozenBN has no counters, which are written as 0.
    assert {n for n in returned if not n.endswith("num_batches_tracked")} == set(d2.state_dict())
    assert all(torch.equal(returned[name], tensor) for name, tensor in d2.state_dict().items())


@pytest.mark.parametrize(("detector", "relu"), CASES)
def test_mmdetection_to_detectron2(detector: str, relu: bool | None, images: list, tmp_path: Path) -> None:
    mm_options = {"model.neck.relu_before_extra_convs": True} if relu else {}
    mm = peers.calibrate(peers.small_mmdetection(detector, ARCHS[detector], mm_options), detector, images[0])
    source = saved(mm, tmp_path / "mm.pth")
    settings = {"relu_before_p7": True} if relu else {}
    report = convert(source, tmp_path / "d2.pth", to="detectron2", whole_detector=True, settings=settings)
    switched = relu is False
    assert report.config_lines == (["MODEL.FPN.RELU_BEFORE_P7 False"] if switched else [])
    d2 = peers.small_detectron2(detector, ARCHS[detector], *(RETINANET_WITHOUT_RELU if switched else ()))
    d2.load_state_dict(tensors(tmp_path / "d2.pth"), strict=True)
    assert_equal_models(d2, mm, detector, images)


@pytest.mark.parametrize("detector", DETECTORS)
def test_dense_outputs_in_double_precision(detector: str, images: list, tmp_path: Path) -> None:
    """What is left in float32 is rounding: neck and heads agree to 1e-9."""
    d2 = peers.small_detectron2(detector, ARCHS[detector])
    convert(saved(d2, tmp_path / "d2.pth"), tmp_path / "mm.pth", to="mmdet", whole_detector=True)
    mm = peers.small_mmdetection(detector, ARCHS[detector], {"model.neck.relu_before_extra_convs": True})
    mm.load_state_dict(tensors(tmp_path / "mm.pth"), strict=True)
    assert_same_heads(d2.double(), mm.double(), detector, images[0])


@pytest.mark.parametrize("family", ["x", "y"])
def test_new_baselines_of_detectron2_load_into_our_configs(family: str, images: list, tmp_path: Path) -> None:
    from detectron2.config import LazyConfig, instantiate
    from detectron2.model_zoo import get_config

    from regnet_backbones.adapters.detectron2 import RegNetCheckpointer

    published = get_config(f"new_baselines/mask_rcnn_regnet{family}_4gf_dds_FPN_100ep_LSJ.py").model
    lazy = LazyConfig.load(str(ROOT / f"configs/detectron2/lazy/mask_rcnn_regnet{family}_4gf_dds_fpn_100ep_lsj.py"))
    for model in (published, lazy.model):
        model.proposal_generator.post_nms_topk = (peers.PROPOSALS, peers.PROPOSALS)
        model.roi_heads.box_predictor.test_topk_per_image = peers.DETECTIONS
    theirs = randomize(instantiate(published), seed=3).eval()
    image = images[0][:, :128, :160]
    peers.calibrate(theirs, "mask_rcnn", image)
    ours = instantiate(lazy.model).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    same(theirs, ours, image)

    # As the model zoo writes it: arrays of numpy, batch norm's counters dropped.
    arrays = {name: t.numpy() for name, t in theirs.state_dict().items() if "num_batches_tracked" not in name}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))
    yaml = peers.detectron2(peers.D2 / f"new_baselines/mask_rcnn_regnet{family}_4gf_syncbn_4conv1fc.yaml")
    RegNetCheckpointer(yaml).load(str(path))
    same(theirs, yaml, image)

    convert(path, tmp_path / "mm.pth", to="mmdet", whole_detector=True)
    config = peers.MM / "mask-rcnn_regnety-4gf_syncbn-fpn_4conv1fc_coco.py"
    mm = peers.mmdetection(config, {"model.backbone.arch": f"regnet{family}_4gf"}, num_classes=None)
    mm.load_state_dict(tensors(tmp_path / "mm.pth"), strict=True)
    assert_same_detections(peers.detect(theirs, image), peers.detect(mm, image))


def same(a: torch.nn.Module, b: torch.nn.Module, image: torch.Tensor) -> None:
    """Bit for bit: the same framework computes the same thing."""
    theirs, ours = peers.detect(a, image), peers.detect(b, image)
    assert len(theirs.boxes) >= 10
    assert torch.equal(theirs.boxes, ours.boxes)
    assert torch.equal(theirs.scores, ours.scores)
    assert theirs.masks is None or torch.equal(theirs.masks, ours.masks)


PUBLISHED_BY_MMDETECTION = {
    "faster_rcnn": ("faster-rcnn_regnetx-400MF_fpn_ms-3x_coco.py", "faster-rcnn_regnetx-3.2gf_fpn_1x_coco.py"),
    "mask_rcnn": ("mask-rcnn_regnetx-400MF_fpn_ms-poly-3x_coco.py", "mask-rcnn_regnetx-400mf_fpn_rgb_coco.py"),
    "retinanet": ("retinanet_regnetx-800MF_fpn_1x_coco.py", "retinanet_regnetx-800mf_fpn_1x_coco.py"),
}


@pytest.mark.parametrize("detector", DETECTORS)
def test_mmdetections_own_detectors_load_into_our_configs(detector: str, images: list, tmp_path: Path) -> None:
    import mmdet

    theirs, ours = PUBLISHED_BY_MMDETECTION[detector]
    config = Path(mmdet.__file__).parent / ".mim" / "configs" / "regnet" / theirs
    published = peers.mmdetection(config, {}, num_classes=None)
    peers.calibrate(published, detector, images[0])
    path = saved(published, tmp_path / "published.pth")
    order = "RGB" if detector == "mask_rcnn" else None
    report = convert(path, tmp_path / "ours.pth", to="mmdet", whole_detector=True, source_channel_order=order)
    assert report.meta.channel_order == (order or "BGR")
    arch = "regnetx_800mf" if detector == "retinanet" else "regnetx_400mf"
    model = peers.mmdetection(peers.MM / ours, {"model.backbone.arch": arch}, num_classes=None)
    model.load_state_dict(tensors(tmp_path / "ours.pth"), strict=True)
    for a, b in zip(peers.pyramid(published, images[0]), peers.pyramid(model, images[0]), strict=True):
        assert relative(a, b) < 1e-5
    assert_same_detections(peers.detect(published, images[0]), peers.detect(model, images[0]))

    convert(tmp_path / "ours.pth", tmp_path / "back.pth", to="mmdet-regnet", whole_detector=True)
    returned = tensors(tmp_path / "back.pth")
    assert returned.keys() == published.state_dict().keys()
    assert all(torch.equal(returned[name], tensor) for name, tensor in published.state_dict().items())


def _broken(state: dict, change: str) -> dict:
    state = dict(state)
    if change == "drop":
        del state["roi_heads.box_predictor.bbox_pred.weight"]
    elif change == "add":
        state["roi_heads.keypoint_head.conv_fcn1.weight"] = torch.zeros(8, 8, 3, 3)
    elif change == "cascade":
        state = {name.replace("box_head.", "box_head.0."): tensor for name, tensor in state.items()}
    elif change == "shape":
        state["backbone.fpn_output3.weight"] = torch.zeros(256, 128, 3, 3)
    elif change == "norm":
        state["backbone.fpn_output3.norm.weight"] = torch.ones(256)
    elif change == "nan":
        state["roi_heads.box_head.fc1.bias"] = torch.full((128,), torch.nan)
    elif change == "anchors":
        for name, count in (("objectness_logits", 4), ("anchor_deltas", 16)):
            for leaf, shape in (("weight", (count, 256, 1, 1)), ("bias", (count,))):
                state[f"proposal_generator.rpn_head.{name}.{leaf}"] = torch.zeros(shape)
    elif change == "heads":
        state = {name: tensor for name, tensor in state.items() if "rpn_head" not in name}
    elif change == "bare":
        state = {name: tensor for name, tensor in state.items() if name.startswith("backbone.bottom_up.")}
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("drop", "roi_heads.box_predictor.bbox_pred.weight"),
        ("add", "keypoint_head"),
        ("cascade", "no place for roi_heads.box_head.0"),
        ("shape", r"backbone.fpn_output3.weight is \(256, 128, 3, 3\), not \(256, 256, 3, 3\)"),
        ("norm", "another norm than batch norm"),
        ("nan", "NaN"),
        ("anchors", "4 anchors per cell"),
        ("heads", "none of Faster R-CNN, Mask R-CNN, RetinaNet"),
        ("bare", "without --whole-detector"),
    ],
)
def test_what_is_no_whole_known_detector_is_refused(change: str, words: str, tmp_path: Path) -> None:
    d2 = peers.small_detectron2("faster_rcnn", "regnetx_200mf")
    torch.save({"model": _broken(d2.state_dict(), change)}, tmp_path / "d2.pth")
    with pytest.raises(UserError, match=words):
        convert(tmp_path / "d2.pth", tmp_path / "mm.pth", to="mmdet", whole_detector=True)
    assert not (tmp_path / "mm.pth").exists()


def test_every_key_is_accounted_for(tmp_path: Path) -> None:
    """Buffers of old checkpoints and the training's state are named; without the switch the heads are, too."""
    d2 = peers.small_detectron2("faster_rcnn", "regnetx_200mf")
    state = d2.state_dict() | {"pixel_mean": torch.zeros(3, 1, 1)}
    state["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    torch.save({"model": state, "optimizer": {"lr": 1}}, tmp_path / "d2.pth")
    report = convert(tmp_path / "d2.pth", tmp_path / "mm.pth", to="mmdet", whole_detector=True)
    left = {key for keys in report.left_out.values() for key in keys}
    assert left == {"pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0", "optimizer"}
    assert report.converted + len(left) - 1 == len(state)
    assert ("detector", "Faster R-CNN, 5 classes, 3 anchors per cell") in report.rows()

    alone = convert(tmp_path / "d2.pth", tmp_path / "alone.pth", to="mmdet")
    assert "proposal_generator.rpn_head.conv.weight" in {key for keys in alone.left_out.values() for key in keys}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "timm"}, "choose one of detectron2, mmdet, mmdet-regnet"),
        ({"to": "mmdet-regnet"}, "squeeze-and-excitation"),
        ({"to": "mmdet", "settings": {"relu_before_p7": True}}, "no setting 'relu_before_p7'"),
        ({"to": "mmdet", "settings": {"anchor_ratios": True}}, "not a whole number"),
        ({"to": "mmdet", "settings": {"anchor_ratios": 3}, "whole_detector": False}, "add --whole-detector"),
    ],
)
def test_impossible_requests_are_refused(options: dict, words: str, tmp_path: Path) -> None:
    source = saved(peers.small_detectron2("mask_rcnn", "regnety_200mf"), tmp_path / "d2.pth")
    with pytest.raises(UserError, match=words):
        convert(source, tmp_path / "out.pth", **{"whole_detector": True, **options})
    assert not (tmp_path / "out.pth").exists()


def test_settings_on_the_command_line(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from regnet_backbones.cli import main

    source = saved(peers.small_detectron2("retinanet", "regnetx_200mf"), tmp_path / "d2.pth")
    words = ["convert", str(source), str(tmp_path / "mm.pth"), "--to", "mmdet", "--whole-detector", "--setting"]
    refused = CliRunner().invoke(main, [*words, "relu_before_p7"])
    assert refused.exit_code == 1
    done = CliRunner().invoke(main, [*words, "relu_before_p7=true"])
    assert done.exit_code == 0, done.output
    assert "model.neck.relu_before_extra_convs=True" in done.output
    assert torch.load(tmp_path / "mm.pth")["regnet_backbones"]["settings"]["relu_before_p7"] is True


def test_the_switch_of_p7_is_checked_on_loading_and_saved(tmp_path: Path) -> None:
    """Detectron2's checkpointer and MMEngine's hook stop where the config builds another RetinaNet."""
    from detectron2.config import get_cfg

    from regnet_backbones.adapters.detectron2 import RegNetCheckpointer, add_regnet_config

    mm = saved(peers.small_mmdetection("retinanet", "regnetx_200mf"), tmp_path / "mm.pth")
    convert(mm, tmp_path / "d2.pth", to="detectron2", whole_detector=True)
    cfg = get_cfg()
    add_regnet_config(cfg)
    cfg.merge_from_file(str(peers.CONFIGS["retinanet"][0]))
    cfg.MODEL.REGNET.ARCH = "regnetx_200mf"
    d2 = peers.small_detectron2("retinanet", "regnetx_200mf", *RETINANET_WITHOUT_RELU)
    with pytest.raises(UserError, match=r"set MODEL\.FPN\.RELU_BEFORE_P7 False, or"):
        RegNetCheckpointer(d2, cfg=cfg).load(str(tmp_path / "d2.pth"))
    cfg.MODEL.FPN.RELU_BEFORE_P7 = False
    checkpointer = RegNetCheckpointer(d2, str(tmp_path), cfg=cfg)
    checkpointer.load(str(tmp_path / "d2.pth"))

    # What our trainer saves says it, so that nothing has to be said on the way back.
    checkpointer.save("model_final")
    report = convert(tmp_path / "model_final.pth", tmp_path / "back.pth", to="mmdet", whole_detector=True)
    assert (report.config_lines, report.meta.settings["relu_before_p7"]) == ([], False)


def test_the_switch_of_p7_is_checked_by_mmengines_hook(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from regnet_backbones.adapters.openmmlab.pixels import PixelsHook

    d2 = saved(peers.small_detectron2("retinanet", "regnetx_200mf"), tmp_path / "d2.pth")
    convert(d2, tmp_path / "mm.pth", to="mmdet", whole_detector=True)
    checkpoint = torch.load(tmp_path / "mm.pth", weights_only=True)
    runner = SimpleNamespace(model=peers.small_mmdetection("retinanet", "regnetx_200mf"))
    with pytest.raises(UserError, match=r"set model\.neck\.relu_before_extra_convs=True, or"):
        PixelsHook().after_load_checkpoint(runner, checkpoint)
    runner.model.neck.relu_before_extra_convs = True
    PixelsHook().after_load_checkpoint(runner, checkpoint)
    saved_again: dict = {}
    PixelsHook().before_save_checkpoint(runner, saved_again)
    assert saved_again["regnet_backbones"]["settings"]["relu_before_p7"] is True


def test_p6_out_of_p5(images: list, tmp_path: Path) -> None:
    """MMDetection's on_output, which the shape of P6's convolution tells."""
    detector = "retinanet"
    mm = peers.small_mmdetection(detector, ARCHS[detector], {"model.neck.add_extra_convs": "on_output"})
    source = saved(mm, tmp_path / "mm.pth")
    report = convert(source, tmp_path / "d2.pth", to="detectron2", whole_detector=True)
    assert report.config_lines == ["MODEL.FPN.RELU_BEFORE_P7 False", "MODEL.FPN.P6_FROM_P5 True"]
    d2 = peers.small_detectron2(detector, ARCHS[detector], *RETINANET_WITHOUT_RELU, "MODEL.FPN.P6_FROM_P5", True)
    d2.load_state_dict(tensors(tmp_path / "d2.pth"), strict=True)
    assert_same_heads(d2, mm, detector, images[0])
