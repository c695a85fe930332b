"""Weights that expect other pixels than a config feeds are caught, in both adapters, before any training step."""

from __future__ import annotations

import logging

import pytest
import torch
from conftest import randomize, relative
from torch import nn

from regnet_backbones import UserError, build, convert
from regnet_backbones.weights import load_backbone
from regnet_backbones.weights.file import read
from regnet_backbones.weights.meta import Meta, imagenet_statistics
from regnet_backbones.weights.pixels import agree, check_pixels

ARCH = "regnetx_400mf_tv"
BGR, RGB = (Meta(**imagenet_statistics(order)) for order in ("BGR", "RGB"))


@pytest.fixture(scope="module")
def rgb_file(tmp_path_factory):
    """As torchvision saves its own, which expect RGB and do not say so."""
    path = tmp_path_factory.mktemp("weights") / "regnet_x_400mf.pth"
    torch.save(randomize(pytest.importorskip("torchvision").models.regnet_x_400mf()).state_dict(), path)
    return path


def check(known, fed, strict=True):
    check_pixels(known, fed, remedy=lambda meta: f"feed {meta.channel_order}", strict=strict, switch="CHECK False")


def test_contradiction_agreement_and_ignorance(caplog):
    with pytest.raises(UserError, match=r"expect RGB pixels .* feeds BGR pixels .*: feed RGB, or .* CHECK False"):
        check(RGB, BGR)
    check(BGR, BGR)
    with caplog.at_level(logging.INFO):
        check(None, BGR)
        assert "do not say which pixels they expect" in caplog.text
        check(RGB, BGR, strict=False)
        assert "expect RGB pixels" in caplog.text


def test_statistics_count_too_but_not_their_rounding():
    rounded = Meta(channel_order="BGR", pixel_mean=(103, 116, 123.2), pixel_std=BGR.pixel_std)
    assert not agree(Meta(channel_order="BGR", pixel_mean=BGR.pixel_mean, pixel_std=(1.0, 1.0, 1.0)), BGR)
    assert agree(Meta(channel_order="BGR", pixel_mean=(103.53, 116.28, 123.68), pixel_std=BGR.pixel_std), BGR)
    assert not agree(rounded, Meta(**{**imagenet_statistics("BGR"), "pixel_mean": (102, 115, 122)}))


def test_flipped_weights_see_the_same_in_the_other_order(rgb_file, tmp_path):
    flipped = tmp_path / "bgr.pth"
    convert(rgb_file, flipped, to="ours", channel_order="BGR")
    networks = []
    for path in (rgb_file, flipped):
        network = build(ARCH).eval().double()
        network.load_state_dict(load_backbone(path, ARCH)[0])
        networks.append(network)
    rgb = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for name, theirs in networks[0](rgb).items():
        assert relative(networks[1](rgb.flip(1))[name], theirs) < 1e-12
    assert read(flipped).meta().channel_order == "BGR"
    assert relative(networks[1](rgb)["s4"], networks[0](rgb)["s4"]) > 0.01


def test_detectron2(rgb_file, tmp_path, caplog):
    pytest.importorskip("detectron2")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    from regnet_backbones.adapters.detectron2 import RegNetCheckpointer, add_regnet_config

    def load(path, *opts):
        cfg = get_cfg()
        add_regnet_config(cfg)
        cfg.merge_from_list(["MODEL.REGNET.ARCH", ARCH, "MODEL.BACKBONE.NAME", "build_regnet_backbone", *opts])
        cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES = ["s4"]
        model = build_backbone(cfg)
        checkpointer = RegNetCheckpointer(model, str(tmp_path), cfg=cfg)
        checkpointer.load(str(path))
        return checkpointer

    bgr = ["MODEL.PIXEL_MEAN", [*BGR.pixel_mean], "MODEL.PIXEL_STD", [*BGR.pixel_std]]
    right = (
        "set INPUT.FORMAT RGB, MODEL.PIXEL_MEAN [123.675, 116.28, 103.53] and MODEL.PIXEL_STD [58.395, 57.12, 57.375]"
    )
    with pytest.raises(UserError) as error:
        load(rgb_file, *bgr)
    assert right in str(error.value)
    load(rgb_file, *bgr, "MODEL.REGNET.CHECK_PIXELS", False)
    assert right in caplog.text
    rgb = ["INPUT.FORMAT", "RGB", "MODEL.PIXEL_MEAN", [*RGB.pixel_mean], "MODEL.PIXEL_STD", [*RGB.pixel_std]]
    load(rgb_file, *rgb).save("trained")
    assert read(tmp_path / "trained.pth").meta().channel_order == "RGB"
    with pytest.raises(UserError, match="expect RGB pixels"):
        load(tmp_path / "trained.pth", *bgr)


@pytest.fixture
def scope_restored():
    """A Runner sets the registry scope of the whole process; what other tests build must not see it."""
    manager = pytest.importorskip("mmengine.registry").DefaultScope
    before = dict(manager._instance_dict)
    yield
    manager._instance_dict.clear()
    manager._instance_dict.update(before)


def test_mmengine_runner_without_a_word_about_it_in_the_config(rgb_file, tmp_path, scope_restored):
    from mmengine.model import BaseModel, ImgDataPreprocessor
    from mmengine.runner import Runner

    from regnet_backbones.adapters.openmmlab import RegNetBackbone

    class Tiny(BaseModel):
        def __init__(self, checkpoint, order, check_pixels):
            statistics = imagenet_statistics(order)
            super().__init__(
                ImgDataPreprocessor(statistics["pixel_mean"], statistics["pixel_std"], bgr_to_rgb=order == "RGB")
            )
            self.backbone = RegNetBackbone(
                ARCH, init_cfg={"type": "Pretrained", "checkpoint": str(checkpoint)}, check_pixels=check_pixels
            )
            self.head = nn.Linear(400, 1)

        def forward(self, inputs, data_samples=None, mode=None):
            return {"loss": self.head(self.backbone(inputs)[-1].mean((2, 3))).mean()}

    def train(checkpoint, order, check_pixels=True, name="run", load_from=None):
        Runner(
            Tiny(checkpoint, order, check_pixels),
            str(tmp_path / name),
            train_dataloader={
                "dataset": [{"inputs": torch.zeros(3, 64, 64, dtype=torch.uint8)}] * 2,
                "sampler": {"type": "DefaultSampler", "shuffle": False},
                "collate_fn": {"type": "pseudo_collate"},
                "batch_size": 2,
            },
            train_cfg={"by_epoch": True, "max_epochs": 1},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.0}},
            load_from=load_from,
            experiment_name=f"{name}-{order}-{check_pixels}",
        ).train()

    with pytest.raises(UserError, match=r"set model\.data_preprocessor to mean=\[123\.675, .*bgr_to_rgb=True"):
        train(rgb_file, "BGR", name="contradiction")
    train(rgb_file, "BGR", check_pixels=False, name="warned")
    train(rgb_file, "RGB", name="right")
    saved = tmp_path / "right/epoch_1.pth"
    assert read(saved).meta().channel_order == "RGB"
    with pytest.raises(UserError, match="expect RGB pixels"):
        train("", "BGR", name="detector", load_from=str(saved))
