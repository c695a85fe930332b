"""From shapes to the architecture and back."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from regnet_backbones import DesignPoint, RegNet, RegNetClassifier, UserError, archs, get_arch
from regnet_backbones.arch import from_point
from regnet_backbones.weights.architecture import Layout, arch_of, expected_shapes, known_as, layout, spec


def trunk_shapes(arch, num_classes=0, in_channels=3, norm="BN"):
    with torch.device("meta"):
        options = {"in_channels": in_channels, "norm": norm}
        model = RegNetClassifier(arch, num_classes, **options) if num_classes else RegNet(arch, **options)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@st.composite
def points(draw) -> DesignPoint:
    try:
        return DesignPoint(
            depth=draw(st.integers(1, 9)), w_0=8 * draw(st.integers(1, 6)), w_a=draw(st.floats(0, 60)),
            w_m=draw(st.floats(1.1, 3.5)), group_width=draw(st.integers(1, 40)),
            bot_mul=draw(st.sampled_from([1.0, 1.0, 0.5, 0.25, 2.0, 4.0])),
            se_ratio=draw(st.sampled_from([0.0, 0.25, 0.25, 0.1, 0.5])), stem_width=draw(st.sampled_from([32, 8, 24])),
            block=draw(st.sampled_from(["bottleneck", "bottleneck", "linear"])),
            group_rounding=draw(st.sampled_from(["pycls", "torchvision"])),
        )  # fmt: skip
    except UserError:
        assume(False)
        raise


@pytest.mark.parametrize("name", archs())
def test_named_archs_are_recognized(name):
    arch = archs()[name]
    assert arch_of(expected_shapes(arch)) is arch


@pytest.mark.parametrize("name", ["regnetx_200mf", "regnety_200mf", "regnetz_500mf"])
@pytest.mark.parametrize(("classes", "channels", "norm"), [(0, 3, "BN"), (10, 1, "BN"), (0, 3, "GN")])
def test_expected_shapes_are_the_trunks(name, classes, channels, norm):
    shapes = trunk_shapes(name, classes, channels, norm)
    assert layout(shapes) == Layout(channels, classes, norm == "BN")
    assert list(expected_shapes(get_arch(name), layout(shapes)).items()) == list(shapes.items())


@settings(max_examples=60, deadline=None)
@given(points())
def test_any_point_is_read_off_its_shapes(point):
    arch = from_point(point)
    shapes = trunk_shapes(arch)
    assert expected_shapes(arch) == shapes
    found = arch_of(shapes)
    assert expected_shapes(found) == shapes
    assert (found.stages, found.stem_width, found.block) == (arch.stages, arch.stem_width, arch.block)


@settings(max_examples=30, deadline=None)
@given(points())
def test_the_metadata_text_builds_the_arch_again(point):
    arch = get_arch(point)
    assert get_arch(spec(arch)).same_network(arch)
    assert known_as(spec(arch), arch_of(expected_shapes(arch))).same_network(arch)


def test_metadata_that_names_another_arch_is_not_believed():
    found = arch_of(expected_shapes(get_arch("regnetx_200mf")))
    assert known_as("regnetx_400mf", found) is found
    assert known_as("nonsense", found) is found


def test_two_networks_called_256gf():
    """SEER's configuration file and ClassyVision's class of that name differ; timm's is the named one."""
    classy = DesignPoint(depth=27, w_0=640, w_a=124.47, w_m=2.04, group_width=848, se_ratio=0.25)
    found = arch_of(expected_shapes(from_point(classy)))
    assert found.name.startswith("RegNet(depths=")
    assert arch_of(expected_shapes(get_arch("regnety_256gf"))).name == "RegNetY-256GF"


def shapes_without(pattern: str):
    shapes = expected_shapes(get_arch("regnety_200mf"))
    return {name: shape for name, shape in shapes.items() if not re.match(pattern, name)}


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"s3\.b2\.", "block 2 of stage 3"), (r"s2\.", "block 1 of stage 2"), (r"stem\.conv", r"stem\.conv"),
        (r"s1\.b1\.f\.b\.", r"s1\.b1\.f\.b\.weight"),
    ],
)  # fmt: skip
def test_missing_parts_are_named(pattern, message):
    with pytest.raises(UserError, match=message):
        arch_of(shapes_without(pattern))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("stem.conv.weight", (32, 3), "no convolution"),
        ("s1.b1.f.b.weight", (24, 7, 3, 3), "divides 24 channels by 7"),
        ("s2.b1.f.se.f_ex.0.weight", (99, 56, 1, 1), "no single ratio"),
        ("s1.b1.f.c.weight", (0, 24, 1, 1), "no convolution"),
    ],
)
def test_impossible_shapes_are_named(name, shape, message):
    with pytest.raises(UserError, match=message):
        arch_of(expected_shapes(get_arch("regnety_200mf")) | {name: shape})
