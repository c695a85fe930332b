"""Loading: what fills the backbone from any place, and what does not is refused or, if allowed, listed."""

import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("detectron2")

from conftest import randomize
from d2_common import CONFIGS
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from torch import nn

from regnet_backbones import RegNetClassifier, UserError
from regnet_backbones.adapters.detectron2 import RegNetCheckpointer, add_regnet_config
from regnet_backbones.weights.file import save
from regnet_backbones.weights.meta import Meta

PREFIX = "backbone.bottom_up."


def detector(arch: str = "regnetx_200mf", *opts: Any) -> nn.Module:
    cfg = get_cfg()
    add_regnet_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "faster_rcnn_regnetx_400mf.yaml"))
    small = ["MODEL.FPN.OUT_CHANNELS", 16, "MODEL.ROI_BOX_HEAD.FC_DIM", 16]
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.REGNET.ARCH", arch, *small, *opts])
    return build_model(cfg)


def semantic(arch: str = "regnetx_200mf") -> nn.Module:
    bare = ("MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.BACKBONE.NAME", "build_regnet_backbone")
    return detector(arch, *bare, "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['s1', 's2', 's3', 's4']")


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return randomize(RegNetClassifier("regnetx_200mf", norm="BN"))


def trunk_of(classifier: nn.Module) -> dict[str, torch.Tensor]:
    return {name: t for name, t in classifier.state_dict().items() if not name.startswith("head.")}


def in_detector(tensors: dict[str, torch.Tensor], prefix: str = PREFIX) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def write_ours(path: Path, classifier: nn.Module) -> None:
    save(path, classifier.state_dict(), Meta(arch="RegNetX-200MF"))


def write_plain(path: Path, classifier: nn.Module) -> None:
    torch.save(trunk_of(classifier), path)


def write_pycls(path: Path, classifier: nn.Module) -> None:
    torch.save({"epoch": 99, "model_state": classifier.state_dict(), "cfg": "MODEL: ..."}, path)


def write_detector(path: Path, classifier: nn.Module) -> None:
    torch.save({"model": in_detector(trunk_of(classifier)), "iteration": 7}, path)


def write_data_parallel(path: Path, classifier: nn.Module) -> None:
    torch.save({"model": in_detector(trunk_of(classifier), f"module.{PREFIX}")}, path)


def write_zoo(path: Path, classifier: nn.Module) -> None:
    """Detectron2's published kind: numpy arrays, no counters of batch norm."""
    tensors = {name: t.numpy() for name, t in trunk_of(classifier).items() if not name.endswith("num_batches_tracked")}
    path.write_bytes(pickle.dumps({"model": in_detector(tensors), "__author__": "someone"}))


WRITERS = {
    "ours.pth": write_ours, "ours.safetensors": write_ours, "plain.pth": write_plain, "pycls.pyth": write_pycls,
    "detector.pth": write_detector, "parallel.pth": write_data_parallel, "zoo.pkl": write_zoo,
}  # fmt: skip


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_fills_the_backbone(name, norm, trained, tmp_path):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors")
    WRITERS[name](tmp_path / name, trained)
    model = detector("regnetx_200mf", "MODEL.REGNET.NORM", norm)
    RegNetCheckpointer(model).load(str(tmp_path / name))
    loaded = model.backbone.bottom_up.state_dict()
    for key, tensor in trunk_of(trained).items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(loaded[key], tensor), key


@pytest.mark.parametrize(("source", "target"), [(semantic, detector), (detector, semantic)])
def test_the_backbone_is_found_with_and_without_an_fpn(source, target, trained, tmp_path):
    model = source()
    trunk = getattr(model.backbone, "bottom_up", model.backbone)
    trunk.load_state_dict(trunk_of(trained))
    tensors = {name: t for name, t in model.state_dict().items() if "fpn_" not in name}
    torch.save({"model": tensors}, tmp_path / "model.pth")
    other = target()
    RegNetCheckpointer(other).load(str(tmp_path / "model.pth"))
    theirs = getattr(other.backbone, "bottom_up", other.backbone)
    assert torch.equal(theirs.s4.b1.f.a.weight, trained.s4.b1.f.a.weight)


def test_detectron2s_own_checkpointer_finds_our_files_too(trained, tmp_path):
    write_ours(tmp_path / "ours.pth", trained)
    model = detector()
    DetectionCheckpointer(model).load(str(tmp_path / "ours.pth"))
    assert torch.equal(model.backbone.bottom_up.s4.b1.f.a.weight, trained.s4.b1.f.a.weight)


def drop(tensors: dict, name: str) -> None:
    del tensors[name]


def reshape(tensors: dict, name: str) -> None:
    tensors[name] = torch.zeros(5, 3)


def add(tensors: dict, name: str) -> None:
    tensors["s1.b1.f.extra.weight"] = torch.zeros(1)


FAULTS = {
    drop: r"1 of its \d+ tensors are missing \(s3\.b2\.f\.b\.weight\)",
    reshape: r"1 have another shape \(s3\.b2\.f\.b\.weight is \(5, 3\), not \(152, 8, 3, 3\)\)",
    add: r"1 tensors have no place in it \(s1\.b1\.f\.extra\.weight\)",
}


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_the_backbone_is_an_error(fault, prefix, trained, tmp_path):
    tensors = trunk_of(trained)
    fault(tensors, "s3.b2.f.b.weight")
    torch.save({"model": in_detector(tensors, prefix)}, tmp_path / "faulty.pth")
    model = detector()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=FAULTS[fault]) as error:
        RegNetCheckpointer(model).load(str(tmp_path / "faulty.pth"))
    assert "MODEL.REGNET.ALLOW_PARTIAL True" in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("fault", FAULTS)
def test_the_switch_allows_it_and_the_log_tells(fault, trained, tmp_path, caplog):
    tensors = trunk_of(trained)
    fault(tensors, "s3.b2.f.b.weight")
    torch.save({"model": tensors}, tmp_path / "faulty.pth")
    model = detector("regnetx_200mf", "MODEL.REGNET.ALLOW_PARTIAL", True)
    with caplog.at_level(logging.WARNING):
        RegNetCheckpointer(model).load(str(tmp_path / "faulty.pth"))
    assert torch.equal(model.backbone.bottom_up.s1.b1.f.a.weight, trained.s1.b1.f.a.weight)
    assert "s3.b2.f.b.weight" in caplog.text or "s1.b1.f.extra.weight" in caplog.text


def test_another_arch_is_an_error_that_names_the_shapes(tmp_path):
    torch.save({"model": detector("regnetx_400mf").state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"the checkpoint does not fit the backbone RegNetX-200MF: .* not \("):
        RegNetCheckpointer(detector()).load(str(tmp_path / "other.pth"))


def test_a_checkpoint_without_any_backbone_is_an_error(tmp_path):
    torch.save({"model": {"conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet\.pth' holds no RegNet in the names of any known format"):
        RegNetCheckpointer(detector("regnetx_200mf")).load(str(tmp_path / "resnet.pth"))


def test_heads_that_do_not_fit_are_listed(trained, tmp_path, caplog):
    wider = detector("regnetx_200mf", "MODEL.ROI_HEADS.NUM_CLASSES", 7).state_dict()
    wider["roi_heads.extra.weight"] = torch.zeros(1)
    del wider["proposal_generator.rpn_head.conv.weight"]
    torch.save({"model": wider}, tmp_path / "wider.pth")
    with caplog.at_level(logging.WARNING):
        RegNetCheckpointer(detector()).load(str(tmp_path / "wider.pth"))
    for name in ("roi_heads.box_predictor.cls_score.weight", "roi_heads.extra", "proposal_generator.rpn_head.conv"):
        assert name in caplog.text


def test_detectron2s_own_checkpointer_does_not_pass_an_unfilled_backbone_either(tmp_path):
    """The trunk itself looks at every load that reaches it, so Detectron2's own tools are safe as well."""
    torch.save({"model": detector("regnetx_400mf").state_dict()}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="does not fit RegNetX-200MF"):
        DetectionCheckpointer(detector()).load(str(tmp_path / "other.pth"))


BROKEN = {
    "absent.pth": (None, "there is no weight file"),
    "text.pth": (b"<html>404</html>", "is not a checkpoint"),
    "empty.pth": (b"", "is empty"),
    "pickle.pkl": (pickle.dumps([1, 2]), "not a checkpoint with named tensors"),
    "strings.pth": ({"model": {"stem.conv.weight": "x"}}, "other things than named tensors"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_get_a_sentence(name, tmp_path):
    content, sentence = BROKEN[name]
    if isinstance(content, dict):
        torch.save(content, tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        RegNetCheckpointer(detector()).load(str(tmp_path / name))


def test_a_truncated_file_gets_a_sentence(trained, tmp_path):
    write_plain(tmp_path / "whole.pth", trained)
    (tmp_path / "half.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:100_000])
    with pytest.raises(UserError, match="damaged"):
        RegNetCheckpointer(detector()).load(str(tmp_path / "half.pth"))


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    checkpointer = RegNetCheckpointer(detector(), str(tmp_path))
    checkpointer.save("model", iteration=1)
    before = (tmp_path / "model.pth").read_bytes()

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(UserError, match="No space left"):
        checkpointer.save("model", iteration=2)
    assert (tmp_path / "model.pth").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model.pth"]
