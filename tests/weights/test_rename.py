"""The engine, and what every table must be."""

from __future__ import annotations

import pytest

from regnet_backbones import UserError, get_arch
from regnet_backbones.weights import formats as formats_package
from regnet_backbones.weights.architecture import expected_shapes
from regnet_backbones.weights.formats import formats, get_format
from regnet_backbones.weights.rename import Rename, inverse

ARCHS = [get_arch(name) for name in ("regnetx_400mf", "regnety_400mf", "regnetz_500mf")]


@pytest.mark.parametrize(
    ("table", "key", "name"),
    [
        ({"layer{i}.{j-1}.conv1": "s{i}.b{j}.f.a"}, "layer2.0.conv1.weight", "s2.b1.f.a.weight"),
        ({"res{i+1}.block{i}-{j-1}.a": "s{i}.b{j}.f.a"}, "res12.block11-3.a.bias", "s11.b4.f.a.bias"),
        ({"a": "b"}, "a.num_batches_tracked", "b.num_batches_tracked"),
        ({"a": None}, "a.weight", None),
    ],
)
def test_rows(table, key, name):
    assert Rename(table)(key) == name
    if name:
        assert Rename(inverse(table))(name) == key


@pytest.mark.parametrize(
    "key",
    ["res2.block2-0.a.weight", "res1.block0-0.a.weight", "res2.block1-0.b.weight", "res2.block1-0.a.scale",
     "res2.block1-00.a.weight", "xres2.block1-0.a.weight", "a", ""],
)  # fmt: skip
def test_no_row(key):
    with pytest.raises(KeyError):
        Rename({"res{i+1}.block{i}-{j-1}.a": "s{i}.b{j}.f.a"})(key)


def test_every_file_is_a_format():
    files = {path.stem for path in __import__("pathlib").Path(formats_package.__file__).parent.glob("*.py")}
    assert set(formats()) == files - {"__init__"}


@pytest.mark.parametrize("name", ["TorchVision", "classy_vision", "OURS"])
def test_forgiving_names(name):
    assert get_format(name).name == name.lower().replace("_", "")


def test_an_unknown_format_lists_them():
    with pytest.raises(UserError, match=r"'caffe'.*pycls.*timm"):
        get_format("caffe")


@pytest.mark.parametrize("arch", ARCHS, ids=lambda arch: arch.name)
@pytest.mark.parametrize("name", formats())
def test_tables_are_one_to_one_and_complete(name, arch):
    fmt = get_format(name)
    if fmt.cannot_hold(arch):
        return
    theirs = {ours: fmt.from_ours(arch)(ours) for ours in expected_shapes(arch)}
    assert len(set(theirs.values())) == len(theirs)
    assert {key: fmt.to_ours()(key) for key in theirs.values()} == {key: ours for ours, key in theirs.items()}
    assert set(fmt.signature()) <= set(theirs.values())


@pytest.mark.parametrize("name", formats())
def test_every_dropped_module_has_a_reason(name):
    fmt = get_format(name)
    assert {left for left, right in fmt.table.items() if right is None} == set(fmt.reasons)
