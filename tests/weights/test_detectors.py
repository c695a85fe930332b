"""Whole detectors, converted: the same pixels in, the same boxes, scores and masks out.

The images are resized once, before either framework sees them: Detectron2 resizes with PIL and MMDetection with
OpenCV, whose pixels differ enough to change detections. The tests are about the networks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import relative

from regnet_backbones import convert

peers = pytest.importorskip("detector_peers", reason="needs detectron2 and mmdet")

ARCHS = {"faster_rcnn": "regnetx_200mf", "mask_rcnn": "regnety_200mf", "retinanet": "regnetx_200mf"}
DETECTORS = list(ARCHS)
RETINANET_WITHOUT_RELU = ("MODEL.FPN.RELU_BEFORE_P7", False)


@pytest.fixture(scope="module")
def images(coco_mini: Path) -> list[torch.Tensor]:
    return peers.pictures(coco_mini, 3)


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
    assert len(a.boxes) == len(b.boxes) >= 20
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


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("detector", DETECTORS)
def test_detectron2_to_mmdetection_and_back(detector: str, relu: bool, images: list, tmp_path: Path) -> None:
    if detector != "retinanet" and not relu:
        pytest.skip("P7 is RetinaNet's")
    options = {"relu_before_p7": relu} if detector == "retinanet" else {}
    d2_options = () if relu else RETINANET_WITHOUT_RELU
    d2 = peers.calibrate(peers.small_detectron2(detector, ARCHS[detector], *d2_options), detector, images[0])
    source = saved(d2, tmp_path / "d2.pth")
    report = convert(source, tmp_path / "mm.pth", to="mmdet", whole_detector=True, settings=options)
    switched = detector == "retinanet" and relu
    assert report.config_lines == (["model.neck.relu_before_extra_convs=True"] if switched else [])
    mm = peers.small_mmdetection(
        detector, ARCHS[detector], {"model.neck.relu_before_extra_convs": True} if switched else {}
    )
    mm.load_state_dict(tensors(tmp_path / "mm.pth"), strict=True)
    assert_equal_models(d2, mm, detector, images)

    # The setting travels in the metadata, so the way back needs none.
    back = convert(tmp_path / "mm.pth", tmp_path / "back.pth", to="detectron2", whole_detector=True)
    assert back.config_lines == ([] if relu else ["MODEL.FPN.RELU_BEFORE_P7 False"])
    returned = tensors(tmp_path / "back.pth")
    # The config's FrozenBN has no counters, which are written as 0.
    assert {n for n in returned if not n.endswith("num_batches_tracked")} == set(d2.state_dict())
    assert all(torch.equal(returned[name], tensor) for name, tensor in d2.state_dict().items())


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("detector", DETECTORS)
def test_mmdetection_to_detectron2(detector: str, relu: bool, images: list, tmp_path: Path) -> None:
    if detector != "retinanet" and relu:
        pytest.skip("P7 is RetinaNet's")
    mm_options = {"model.neck.relu_before_extra_convs": True} if relu else {}
    mm = peers.calibrate(peers.small_mmdetection(detector, ARCHS[detector], mm_options), detector, images[0])
    source = saved(mm, tmp_path / "mm.pth")
    settings = {"relu_before_p7": True} if relu else {}
    report = convert(source, tmp_path / "d2.pth", to="detectron2", whole_detector=True, settings=settings)
    switched = detector == "retinanet" and not relu
    assert report.config_lines == (["MODEL.FPN.RELU_BEFORE_P7 False"] if switched else [])
    d2 = peers.small_detectron2(detector, ARCHS[detector], *(RETINANET_WITHOUT_RELU if switched else ()))
    d2.load_state_dict(tensors(tmp_path / "d2.pth"), strict=True)
    assert_equal_models(d2, mm, detector, images[:2])
