"""Weights must fit: through init_cfg, and when a whole detector is loaded."""

from __future__ import annotations

import pytest
import torch
from conftest import randomize

pytest.importorskip("mmdet")

from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint

from regnet_backbones import RegNetClassifier, UserError
from regnet_backbones.adapters.openmmlab import RegNetBackbone
from regnet_backbones.weights.file import save
from regnet_backbones.weights.meta import Meta

ARCH = "regnetx_200mf"


@pytest.fixture(scope="module")
def trained() -> dict[str, torch.Tensor]:
    return randomize(RegNetClassifier(ARCH, num_classes=5)).state_dict()


def write(path, contents) -> str:
    torch.save(contents, path)
    return str(path)


def initialized(checkpoint: str, arch=ARCH, prefix=None, **options) -> RegNetBackbone:
    init_cfg = {"type": "Pretrained", "checkpoint": checkpoint} | ({"prefix": prefix} if prefix else {})
    model = RegNetBackbone(arch, init_cfg=init_cfg, **options)
    model.init_weights()
    return model


def holds(model: torch.nn.Module, trained) -> bool:
    return all(torch.equal(tensor, trained[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("container", ["", "state_dict", "model", "model_state", "ours", "safetensors", "module."])
def test_containers(container, trained, tmp_path):
    path = tmp_path / f"weights.{'safetensors' if container == 'safetensors' else 'pth'}"
    if container in ("ours", "safetensors"):
        save(path, trained, Meta(arch="RegNetX-200MF"))
    elif container == "module.":
        write(path, {"state_dict": {f"module.{name}": tensor for name, tensor in trained.items()}})
    else:
        write(path, {container: trained} if container else trained)
    assert holds(initialized(str(path)), trained)


def test_prefix_and_shallower_backbone(trained, tmp_path):
    detector = {f"backbone.{name}": t for name, t in trained.items()} | {"neck.conv.weight": torch.ones(3)}
    path = write(tmp_path / "detector.pth", {"state_dict": detector, "meta": {}})
    assert holds(initialized(path, prefix="backbone"), trained)
    assert holds(initialized(path, prefix="backbone.", out_indices=(1,)), trained)
    with pytest.raises(UserError, match=r"nothing .* begins with 'student\.'; its names begin with backbone, neck"):
        initialized(path, prefix="student")


def test_mmdets_own_weights_are_renamed(tmp_path):
    from mmdet.models.backbones import RegNet

    theirs = randomize(RegNet("regnetx_400mf"))
    model = initialized(write(tmp_path / "mm.pth", {"state_dict": theirs.state_dict()}), "regnetx_400mf")
    assert torch.equal(model.s4.b1.f.b.weight, theirs.layer4[0].conv2.weight)


def broken(trained, how: str) -> tuple[dict, list[str]]:
    tensors = dict(trained)
    if how == "missing":
        del tensors["s2.b1.f.b_bn.running_var"]
        return tensors, ["s2.b1.f.b_bn.running_var"]
    if how == "misplaced":
        return tensors | {"s2.b9.f.a.weight": torch.ones(3)}, ["s2.b9.f.a.weight", "no place"]
    return tensors | {"s3.b1.f.a.weight": torch.ones(7, 7, 1, 1)}, [
        "s3.b1.f.a.weight",
        "(7, 7, 1, 1)",
        "(152, 56, 1, 1)",
    ]


@pytest.mark.parametrize("how", ["missing", "misplaced", "reshaped"])
def test_what_does_not_fit_is_an_error(how, trained, tmp_path):
    tensors, words = broken(trained, how)
    path = write(tmp_path / "bad.pth", {"state_dict": tensors})
    with pytest.raises(UserError) as error:
        initialized(path)
    assert all(word in str(error.value) for word in [*words, "allow_partial"]), error.value
    model = initialized(path, allow_partial=True)
    assert torch.equal(model.s1.b1.f.a.weight, trained["s1.b1.f.a.weight"])


@pytest.mark.parametrize("how", ["missing", "misplaced", "reshaped"])
def test_load_from_of_a_whole_detector_is_as_strict(how, trained, tmp_path):
    head = {"type": "mmdet.RetinaHead", "num_classes": 3, "in_channels": 8, "feat_channels": 8}
    config = {
        "type": "mmdet.RetinaNet",
        "bbox_head": head,
        "backbone": {"type": "RegNetBackbone", "arch": ARCH},
        "neck": {"type": "mmdet.FPN", "in_channels": [24, 56, 152, 368], "out_channels": 8, "num_outs": 5},
    }
    model = MODELS.build(config)
    good = {f"backbone.{name}": tensor for name, tensor in trained.items() if not name.startswith("head")}
    load_checkpoint(model, write(tmp_path / "good.pth", {"state_dict": good}))
    assert holds(model.backbone, trained)
    tensors, words = broken(trained, how)
    bad = {f"backbone.{name}": tensor for name, tensor in tensors.items()}
    with pytest.raises(UserError) as error:
        load_checkpoint(model, write(tmp_path / "bad.pth", {"state_dict": bad}))
    assert all(word in str(error.value) for word in words), error.value


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        initialized(str(tmp_path / "absent.pth"))
    text = tmp_path / "text.pth"
    text.write_text("hello")
    with pytest.raises(UserError, match="not a checkpoint"):
        initialized(str(text))
    with pytest.raises(UserError, match="holds no RegNet"):
        initialized(write(tmp_path / "other.pth", {"state_dict": {"conv.weight": torch.ones(1)}}))


def test_no_checkpoint_is_no_error_but_a_frozen_random_stem_is_told(caplog):
    initialized("", frozen_stages=-1)
    assert "random" not in caplog.text
    model = RegNetBackbone(ARCH, frozen_stages=1, init_cfg=[{"type": "Constant", "layer": "Conv2d", "val": 0.5}])
    with pytest.MonkeyPatch.context() as patch:
        told = []
        patch.setattr("regnet_backbones.adapters.openmmlab.backbone.print_log", lambda text, **_: told.append(text))
        model.init_weights()
    assert "frozen at random values" in told[0]
    assert model.stem.conv.weight.eq(0.5).all()  # other initializers run
