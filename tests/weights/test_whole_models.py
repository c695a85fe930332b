"""Trunks inside whole detectors, and networks that only look like a RegNet."""

from __future__ import annotations

import pickle

import pytest
import torch
from conftest import randomize
from format_peers import Detectron2, OpenMMLab

from regnet_backbones import UserError, convert, get_arch
from regnet_backbones.weights import file, load_backbone
from regnet_backbones.weights.meta import Meta

ARCH = get_arch("regnetx_400mf")


def detectron2_detector() -> torch.nn.Module:
    """Mask R-CNN's own config with Detectron2's own RegNet below the FPN."""
    model_zoo = pytest.importorskip("detectron2.model_zoo")
    from detectron2.config import LazyCall, instantiate

    config = model_zoo.get_config("common/models/mask_rcnn_fpn.py").model
    config.backbone.bottom_up = LazyCall(Detectron2().make)(arch=ARCH)
    config.backbone.in_features = ["s1", "s2", "s3", "s4"]
    return randomize(instantiate(config))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    model = detectron2_detector()
    from detectron2.checkpoint import DetectionCheckpointer

    folder = tmp_path_factory.mktemp("d2")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    DetectionCheckpointer(model, str(folder), optimizer=optimizer).save("model", iteration=5)
    return model, folder / "model.pth"


def test_the_trunk_of_a_detectron2_detector(detector, tmp_path):
    model, path = detector
    report = convert(path, tmp_path / "own.pth", to="ours")
    assert (report.source_format, report.arch.name) == ("detectron2", "RegNetX-400MF")
    trunk, rest = report.left_out.pop("a part of the detector, not of its backbone"), report.left_out
    assert rest == {"training state": ["optimizer", "iteration"]}
    names = set(model.state_dict())
    assert set(trunk) == {name for name in names if not name.startswith("backbone.bottom_up.")}
    found = file.read(report.dst).data["model"]
    own = model.backbone.bottom_up.state_dict()
    assert found.keys() == own.keys()
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_a_model_zoo_pickle(detector, tmp_path):
    """As the zoo's files: numpy arrays, no counters of batch norm."""
    model, _ = detector
    arrays = {n: t.numpy() for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "zoo"}))
    report = convert(tmp_path / "model_final.pkl", tmp_path / "b.pth", to="timm")
    counters = sum(name.endswith("num_batches_tracked") for name in model.backbone.bottom_up.state_dict())
    assert len(report.zeroed) == counters
    assert report.meta.channel_order == "BGR"


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_detectron2_finds_a_converted_backbone_in_its_detector(tmp_path, suffix):
    from regnet_backbones import build

    model = detectron2_detector()
    from detectron2.checkpoint import DetectionCheckpointer

    trunk = randomize(build(ARCH), seed=5)
    file.save(tmp_path / "own.pth", trunk.state_dict(), Meta())
    report = convert(tmp_path / "own.pth", tmp_path / f"d2{suffix}", to="detectron2")
    DetectionCheckpointer(model).load(str(report.dst))
    loaded = model.backbone.bottom_up.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in trunk.state_dict().items())


def mmdetection_detector() -> torch.nn.Module:
    """Its own RetinaNet config with RegNet."""
    mmdet = pytest.importorskip("mmdet")
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine import Config

    register_all_modules()
    config = Config.fromfile(f"{mmdet.__path__[0]}/.mim/configs/regnet/retinanet_regnetx-800MF_fpn_1x_coco.py").model
    config.backbone.arch, config.backbone.init_cfg = "regnetx_400mf", None
    config.neck.in_channels = [stage.width for stage in ARCH.stages]
    return randomize(MODELS.build(config))


def test_the_trunk_of_an_mmdetection_detector(tmp_path):
    model = mmdetection_detector()
    from mmengine.runner import save_checkpoint

    checkpoint = {"meta": {"epoch": 3}, "state_dict": model.state_dict(), "optimizer": {"param_groups": [{"lr": 1}]}}
    save_checkpoint(checkpoint, str(tmp_path / "epoch_3.pth"))
    report = convert(tmp_path / "epoch_3.pth", tmp_path / "own.pth", to="ours")
    assert (report.source_format, report.arch.name) == ("mmdet", "RegNetX-400MF")
    rest = {name for name in model.state_dict() if not name.startswith("backbone.")}
    assert set(report.left_out["a part of the detector, not of its backbone"]) == rest
    convert(tmp_path / "own.pth", tmp_path / "back.pth", to="mmdet")
    fresh = OpenMMLab().make(ARCH)
    OpenMMLab().load(fresh, tmp_path / "back.pth")
    trunk = model.backbone.state_dict()
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in fresh.state_dict().items())


def test_open_mmlab_files_hold_a_classifier(tmp_path):
    trunk = dict(OpenMMLab().make(ARCH).state_dict())
    fc = {"fc.weight": torch.ones(6, ARCH.stages[-1].width), "fc.bias": torch.ones(6)}
    torch.save({"state_dict": trunk | fc}, tmp_path / "regnetx_400mf.pth")
    report = convert(tmp_path / "regnetx_400mf.pth", tmp_path / "own.pth", to="ours")
    assert (report.source_format, report.num_classes, report.left_out) == ("mmdet", 6, {})
    report = convert(tmp_path / "own.pth", tmp_path / "back.pth", to="mmdet")
    assert report.left_out["MMDetection's RegNet has no classifier"] == ["head.fc.weight", "head.fc.bias"]


def timm_state(name: str, **options) -> dict[str, torch.Tensor]:
    return pytest.importorskip("timm").create_model(name, **options).state_dict()


def test_the_last_convolution_of_timms_regnetz_is_left_out(tmp_path):
    torch.save(timm_state("regnetz_005", num_classes=5), tmp_path / "a.pth")
    report = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours")
    assert (report.arch.name, report.num_classes) == ("RegNetZ-500MF", 0)
    reasons = {reason: len(keys) for reason, keys in report.left_out.items()}
    assert reasons == {
        "RegNetZ's last 1x1 belongs to the classifier, not to the features": 6,
        "a classifier on other features than the last stage's": 2,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("regnetz_b16", "regnetz_b16.*byobnet"), ("regnetz_d8", "byobnet"), ("regnetv_040", "RegNetV"),
        ("regnety_040_sgn", "running statistics"), ("resnet18", "no whole RegNet"),
    ],
)  # fmt: skip
def test_look_alikes_are_refused_by_name(tmp_path, name, message):
    torch.save(timm_state(name), tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        load_backbone(tmp_path / "a.pth")


def test_a_resnet_with_mmdetections_names(tmp_path):
    resnet = pytest.importorskip("torchvision").models.resnet50()
    torch.save(resnet.state_dict(), tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"no place for|another network|cannot be read as a RegNet"):
        load_backbone(tmp_path / "a.pth")


@pytest.mark.parametrize("feature_class", ["list", "dict", "hook", "getter"])
def test_every_kind_of_timms_feature_network(tmp_path, feature_class):
    torch.save(timm_state("regnety_002", features_only=True, feature_cls=feature_class), tmp_path / "a.pth")
    assert convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours").arch.name == "RegNetY-200MF"
