"""A name of the catalogue stands where a file can, in both adapters; the file waits in the cache, as if downloaded."""

from __future__ import annotations

import pytest
import torch
from conftest import randomize

from regnet_backbones import RegNetClassifier, UserError
from regnet_backbones.weights.catalogue import find
from regnet_backbones.weights.download import place

NAME = "regnetx_200mf.pycls_in1k"


@pytest.fixture
def published(tmp_path, monkeypatch) -> dict[str, torch.Tensor]:
    monkeypatch.setenv("REGNET_BACKBONES_CACHE", str(tmp_path / "cache"))
    weights = randomize(RegNetClassifier("regnetx_200mf")).state_dict()
    path = place(find(NAME))
    path.parent.mkdir(parents=True)
    torch.save({"model_state": weights, "epoch": 99}, path)
    return weights


def test_detectron2(published, tmp_path):
    pytest.importorskip("detectron2")
    from d2_common import CONFIGS
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from regnet_backbones.adapters.detectron2 import RegNetCheckpointer, add_regnet_config

    cfg = get_cfg()
    add_regnet_config(cfg)
    cfg.merge_from_file(str(CONFIGS / "faster_rcnn_regnetx_400mf.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.REGNET.ARCH", "regnetx_200mf", "MODEL.FPN.OUT_CHANNELS", 16])
    model = build_model(cfg)
    RegNetCheckpointer(model, cfg=cfg).load(f"regnet://{NAME}")
    assert torch.equal(model.backbone.bottom_up.s4.b7.f.c.weight, published["s4.b7.f.c.weight"])
    cfg.INPUT.FORMAT = "RGB"
    with pytest.raises(UserError, match=rf"{NAME}.* expect BGR pixels"):
        RegNetCheckpointer(model, cfg=cfg).load(f"regnet://{NAME}")
    with pytest.raises(UserError, match="regnetx_200mf"):
        RegNetCheckpointer(model, cfg=cfg).load("regnet://regnetx_200mf.pycls")


def test_openmmlab(published):
    pytest.importorskip("mmengine")
    from regnet_backbones.adapters.openmmlab import RegNetBackbone

    model = RegNetBackbone("regnetx_200mf", init_cfg={"type": "Pretrained", "checkpoint": f"regnet://{NAME}"})
    model.init_weights()
    assert torch.equal(model.s4.b7.f.c.weight, published["s4.b7.f.c.weight"])
    assert model.weights_meta.name == NAME
    assert model.weights_meta.channel_order == "BGR"
