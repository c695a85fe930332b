"""Metadata: validation, plain values, reversal."""

from __future__ import annotations

import json

import pytest

from regnet_backbones import UserError
from regnet_backbones.weights.meta import Meta, imagenet_statistics

FULL = Meta(
    arch="RegNetY-4.0GF", format="pycls", source="https://example.org/a.pyth", sha256="0" * 64, name="a.b",
    notes=["assumed"], settings={"relu": True, "size": 3}, **imagenet_statistics("BGR"),
)  # fmt: skip


@pytest.mark.parametrize("meta", [FULL, Meta()])
def test_plain_values_there_and_back(meta):
    assert Meta.from_dict(json.loads(json.dumps(meta.to_dict()))) == meta


def test_empty_fields_are_not_written():
    assert Meta(arch="RegNetX-200MF").to_dict() == {"arch": "RegNetX-200MF"}


def test_fields_of_later_versions_are_ignored():
    assert Meta.from_dict({"arch": "a", "invented": 1}) == Meta(arch="a")


def test_published_statistics():
    """The values that Detectron2 and OpenMMLab configs state for pycls' weights."""
    assert imagenet_statistics("BGR")["pixel_mean"] == (103.53, 116.28, 123.675)
    assert imagenet_statistics("BGR")["pixel_std"] == (57.375, 57.12, 58.395)
    assert imagenet_statistics("RGB")["pixel_mean"] == (123.675, 116.28, 103.53)


def test_reversal():
    flipped = FULL.flipped()
    assert (flipped.channel_order, flipped.pixel_mean) == ("RGB", (123.675, 116.28, 103.53))
    assert flipped.flipped() == FULL
    with pytest.raises(UserError, match="unknown"):
        Meta().flipped()


@pytest.mark.parametrize(
    "wrong",
    [
        {"channel_order": "GBR"}, {"arch": 3}, {"pixel_mean": [1, 2]}, {"pixel_mean": [1, 2, float("nan")]},
        {"pixel_std": [1, 0, 1]}, {"pixel_mean": "123"}, {"sha256": "xyz"}, {"notes": "one"}, {"notes": [1]},
        {"settings": {"a": [1]}}, {"settings": [1]}, {"pixel_mean": [True, 1, 1]}, {"pixel_std": 4},
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values_are_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Meta.from_dict(wrong)


def test_not_a_mapping():
    with pytest.raises(UserError, match="mapping"):
        Meta.from_dict([1])
