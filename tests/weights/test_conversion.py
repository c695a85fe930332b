"""Conversion: nothing lost, nothing invented, every refusal named; channel order and metadata travel."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from conftest import randomize, relative
from hypothesis import given, settings
from hypothesis import strategies as st
from test_architecture import points

from regnet_backbones import RegNetClassifier, UserError, build, convert, get_arch
from regnet_backbones.arch import from_point
from regnet_backbones.cli import main
from regnet_backbones.weights import file, load_backbone
from regnet_backbones.weights.architecture import Layout, expected_shapes
from regnet_backbones.weights.formats import formats, get_format
from regnet_backbones.weights.meta import Meta, imagenet_statistics

TINY = "depth=6,w_0=8,w_a=8,w_m=2,group_width=4"  # four stages: every format but for Y can hold it
SUFFIXES = {"torch": ".pth", "pickle": ".pkl", "safetensors": ".safetensors"}
SOURCE = {"source": "https://example.org/w.pyth", "sha256": "a" * 64}
BGR = Meta(arch=TINY, format="pycls", **SOURCE, **imagenet_statistics("BGR"))


def state(arch, num_classes: int = 0, seed: int = 0, dtype=torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = expected_shapes(get_arch(arch), Layout(num_classes=num_classes))
    return {
        name: torch.randn(shape, generator=generator).to(dtype) if shape else torch.tensor(seed + len(name))
        for name, shape in shapes.items()
    }


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.pth"
    file.save(path, state(TINY, 5), BGR)
    return path


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@settings(max_examples=30, deadline=None)
@given(points(), st.sampled_from(sorted(formats())), st.integers(0, 3), st.sampled_from([torch.float16, torch.float64]))
def test_any_arch_any_format_there_and_back(tmp_path_factory, point, name, num_classes, dtype):
    folder, target = tmp_path_factory.mktemp("any"), get_format(name)
    arch = replace(from_point(point), point=None)  # a file without metadata does not tell its parameters
    original = state(arch, num_classes, dtype=dtype)
    file.save(folder / "own.pth", original, Meta())
    path = folder / f"theirs{SUFFIXES[target.containers[-1]]}"
    if target.cannot_hold(arch):
        with pytest.raises(UserError, match=re.escape(target.title)):
            convert(folder / "own.pth", path, to=name)
        assert not path.exists()
        return
    convert(folder / "own.pth", path, to=name)
    report = convert(path, folder / "back.pth", to="ours", source_format=name)
    kept = {k: t for k, t in original.items() if not k.startswith("head") or target.writes_head}
    assert equal(file.read(folder / "back.pth").data["model"], kept)
    assert report.arch.stages == arch.stages


@pytest.mark.parametrize("name", formats())
def test_metadata_travels_and_keeps_naming_the_first_source(own, tmp_path, name):
    target = get_format(name)
    for container in target.containers:
        path = tmp_path / f"theirs{SUFFIXES[container]}"
        report = convert(own, path, to=name)
        assert report.meta == file.read(path).meta()
        assert get_arch(report.meta.arch).same_network(get_arch(TINY))
        assert (report.meta.source, report.meta.sha256, report.meta.format) == (BGR.source, BGR.sha256, "pycls")
        assert report.meta.channel_order == "BGR"
        assert report.left_out.get("not weights", []) == ["matching_heuristics"]


@pytest.mark.parametrize("name", [name for name, fmt in formats().items() if name != "ours"])
def test_peers_publish_in_known_orders(own, tmp_path, name):
    """Without metadata, what the format's publisher uses is assumed, and said."""
    path = tmp_path / "theirs.pth"
    convert(own, path, to=name)
    data = file.read(path).data
    data.pop(file.META_KEY, None)
    torch.save(dict(data), path)
    meta = load_backbone(path, TINY)[1]
    assert meta.channel_order == ("BGR" if name in ("pycls", "detectron2", "mmdet", "mmpretrain") else "RGB")
    assert meta.pixel_mean == imagenet_statistics(meta.channel_order)["pixel_mean"]
    assert "assumed" in meta.notes[0]
    report = convert(path, tmp_path / "b.pth", to="ours", source="https://example.org/x")
    assert report.meta.source == "https://example.org/x"
    assert report.meta.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_own_files_without_metadata_assume_nothing(tmp_path):
    torch.save({"model": state(TINY), "matching_heuristics": True, file.META_KEY: {}}, tmp_path / "a.pth")
    report = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours")
    assert (report.meta.channel_order, report.meta.pixel_mean) == ("", ())


def test_flip_gives_the_same_features_on_the_same_picture(tmp_path):
    bgr = randomize(build("regnetx_200mf", out_features=["stem", "s4"])).eval()
    file.save(tmp_path / "bgr.pth", bgr.state_dict(), BGR)
    report = convert(tmp_path / "bgr.pth", tmp_path / "rgb.pth", to="ours", channel_order="RGB")
    assert report.flipped
    assert (report.meta.channel_order, report.meta.pixel_mean) == ("RGB", BGR.pixel_mean[::-1])
    assert any("reversed from BGR to RGB" in note for note in report.meta.notes)
    rgb = build("regnetx_200mf", out_features=["stem", "s4"]).eval()
    rgb.load_state_dict(load_backbone(report.dst, "regnetx_200mf")[0])
    picture = torch.randint(0, 256, (1, 3, 64, 64)).float()  # RGB

    def features(model, image, meta):
        mean, std = (torch.tensor(values)[:, None, None] for values in (meta.pixel_mean, meta.pixel_std))
        with torch.no_grad():
            return model.double()(((image - mean) / std).double())

    ours, theirs = features(rgb, picture, report.meta), features(bgr, picture.flip(1), BGR)
    assert all(relative(ours[name], theirs[name]) < 1e-9 for name in theirs)
    wrong = features(rgb, picture.flip(1), report.meta)
    assert relative(wrong["s4"], theirs["s4"]) > 1e-2
    again = convert(report.dst, tmp_path / "again.pth", to="ours", channel_order="BGR")
    assert equal(file.read(again.dst).data["model"], bgr.float().state_dict())


def test_no_flip_unless_needed(own, tmp_path):
    report = convert(own, tmp_path / "a.pth", to="timm", channel_order="BGR")
    assert not report.flipped
    assert torch.equal(file.read(report.dst).data["stem.conv.weight"], state(TINY, 5)["stem.conv.weight"])


def test_an_unknown_order_must_be_said_before_it_is_changed(tmp_path):
    file.save(tmp_path / "a.pth", state(TINY), Meta())
    with pytest.raises(UserError, match="--source-channel-order"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours", channel_order="RGB")
    report = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours", channel_order="RGB", source_channel_order="BGR")
    assert report.flipped
    assert report.meta.channel_order == "RGB"


def test_the_files_own_word_stands(own, tmp_path):
    with pytest.raises(UserError, match="says itself"):
        convert(own, tmp_path / "b.pth", to="ours", source_channel_order="RGB")


def test_an_assumed_order_can_be_corrected(own, tmp_path):
    torch.save({"model_state": state(TINY)}, tmp_path / "ffcv.pyth")
    report = convert(tmp_path / "ffcv.pyth", tmp_path / "b.pth", to="ours", source_channel_order="RGB")
    assert (report.flipped, report.meta.channel_order, report.meta.pixel_mean[0]) == (False, "RGB", 123.675)


def test_counters_that_detectron2_drops_are_zero(tmp_path):
    kept = {name: tensor for name, tensor in state(TINY).items() if not name.endswith("num_batches_tracked")}
    torch.save({"model": kept}, tmp_path / "d2.pth")
    report = convert(tmp_path / "d2.pth", tmp_path / "mm.pth", to="mmdet")
    found = file.read(report.dst).data["state_dict"]
    counters = [tensor for name, tensor in found.items() if name.endswith("num_batches_tracked")]
    assert len(counters) == len(report.zeroed) == 1 + 4 + 6 * 3
    assert all(counter.item() == 0 and counter.dtype == torch.int64 for counter in counters)


def test_a_missing_head_is_said(tmp_path):
    file.save(tmp_path / "a.pth", state(TINY), BGR)
    report = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="torchvision")
    assert report.missing == ["the classifier (fc)"]
    assert ("missing", "the classifier (fc)") in report.rows()


def test_training_state_and_averaged_weights(tmp_path):
    checkpoint = {
        "epoch": 7, "model_state": state(TINY), "ema_state": state(TINY, seed=1), "cfg": "a: 1",
        "optimizer_state": {"state": {0: {"momentum_buffer": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    }  # fmt: skip
    torch.save(checkpoint, tmp_path / "a.pyth")
    report = convert(tmp_path / "a.pyth", tmp_path / "b.pth", to="ours")
    assert equal(file.read(report.dst).data["model"], state(TINY))
    assert report.left_out == {
        "training state": ["epoch", "optimizer_state"], "averaged weights; take them with ema": ["ema_state"],
        "not weights": ["cfg"],
    }  # fmt: skip
    report = convert(tmp_path / "a.pyth", tmp_path / "c.pth", to="ours", ema=True)
    assert equal(file.read(report.dst).data["model"], state(TINY, seed=1))


def test_no_averaged_weights(own, tmp_path):
    with pytest.raises(UserError, match="no averaged"):
        convert(own, tmp_path / "b.pth", to="ours", ema=True)


@pytest.mark.parametrize("prefix", ["module.", "model.", "body.", "encoder.", "backbone.timm_model."])
def test_wrappers_are_looked_through(tmp_path, prefix):
    file.save(tmp_path / "a.pth", state(TINY, 5), BGR)
    convert(tmp_path / "a.pth", tmp_path / "timm.pth", to="timm")
    tensors = file.read(tmp_path / "timm.pth").data
    torch.save({prefix + k: t for k, t in tensors.items()} | {"steps": torch.tensor(3)}, tmp_path / "wrapped.pth")
    report = convert(tmp_path / "wrapped.pth", tmp_path / "b.pth", to="ours")
    assert equal(file.read(report.dst).data["model"], state(TINY, 5))
    assert report.left_out == {f"outside of '{prefix.rstrip('.')}'": ["steps"]}


def test_two_networks_in_one_file(tmp_path):
    teacher = {f"teacher.{name}": tensor for name, tensor in state(TINY).items()}
    student = {f"student.{name}": tensor for name, tensor in state(TINY, seed=1).items()}
    torch.save(teacher | student, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"2 RegNets.*'teacher\.', 'student\.'"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours")
    report = convert(tmp_path / "a.pth", tmp_path / "b.pth", to="ours", prefix="student.")
    assert equal(file.read(report.dst).data["model"], state(TINY, seed=1))
    assert list(report.left_out) == ["outside of 'student'"]
    with pytest.raises(UserError, match="no RegNet at 'nowhere'"):
        convert(tmp_path / "a.pth", tmp_path / "c.pth", to="ours", prefix="nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s | {"s1.b1.f.d.weight": torch.ones(1)}, r"no place for s1\.b1\.f\.d\.weight"),
        (lambda s: s | {"extra": torch.ones(1)}, "no place for extra"),
        (lambda s: {k: t for k, t in s.items() if not k.startswith("s2.b1.f.c_bn")}, r"missing \(s2\.b1\.f\.c_bn\.w"),
        (lambda s: {k: t for k, t in s.items() if not k.startswith("s2.")}, "block 1 of stage 2"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(9)}, r"s1\.b1\.bn\.bias is \(9,\), not \(8,\)"),
        (lambda s: s | {"s1.b1.bn.bias": torch.full((8,), float("nan"))}, r"NaN or infinite numbers for 's1\.b1\.bn"),
        (lambda s: s | {"s1.b1.bn.bias": torch.full((8,), float("inf"))}, "NaN or infinite"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(8, dtype=torch.int32)}, r"int32 numbers for 's1\.b1\.bn\.bias'"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(8, dtype=torch.complex64)}, "complex64"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(8, dtype=torch.float8_e5m2)}, "float8"),
        (lambda s: s | {"stem.bn.num_batches_tracked": torch.tensor(1.5)}, "float32 numbers for 'stem.bn.num_b"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(1).expand(8)}, "repeats few numbers"),
        (lambda s: s | {"s1.b1.bn.bias": torch.ones(8).to_sparse()}, "dense tensor"),
        (lambda s: s | {"s1.b1.bn.bias": "text"}, "dense tensor"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path, change, message):
    torch.save({"model_state": change(state(TINY))}, tmp_path / "a.pyth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "a.pyth", tmp_path / "b.pth", to="timm")
    assert os.listdir(tmp_path) == ["a.pyth"]


@pytest.mark.parametrize(
    ("arch", "to", "message"),
    [
        ("regnety_200mf", "mmdet", "MMDetection.*squeeze"),
        ("regnety_200mf", "mmpretrain", "MMPretrain.*squeeze"),
        ("depth=9,w_0=8,w_a=30,w_m=2,group_width=8", "mmdet", "4 stages, not 5"),
        ("regnetx_400mf_tv", "mmdet", "torchvision's"),
        ("depth=16,w_0=8,w_a=71.5,w_m=2.5,group_width=8", "mmdet", "784 channels in groups of 8"),
        ("regnetz_500mf", "torchvision", "RegNetZ"),
        ("regnetz_500mf", "detectron2", "RegNetZ"),
        ("regnetz_500mf", "transformers", "RegNetZ"),
        ("depth=4,w_0=8,w_a=8,w_m=2,group_width=4,se_ratio=0.5", "transformers", "quarter"),
        ("depth=4,w_0=8,w_a=8,w_m=2,group_width=4,bot_mul=0.5", "transformers", "bottleneck"),
    ],
)
def test_what_a_format_cannot_hold(arch, to, message):
    assert re.search(message, f"{get_format(to).title}: {get_format(to).cannot_hold(get_arch(arch))}")


def test_unequal_group_widths_in_transformers():
    arch = get_arch(TINY)
    arch = replace(arch, stages=(*arch.stages[:-1], replace(arch.stages[-1], group_width=8)))
    assert "one group width" in get_format("transformers").cannot_hold(arch)


def test_the_wrong_arch_is_named(own, tmp_path):
    with pytest.raises(UserError, match=r"holds RegNet\(.*not RegNetX-200MF"):
        convert(own, tmp_path / "b.pth", to="ours", arch="regnetx_200mf")
    with pytest.raises(UserError, match="not RegNetX-200MF"):
        load_backbone(own, "regnetx_200mf")


def test_the_wrong_format_is_named(own, tmp_path):
    with pytest.raises(UserError, match="in the names of timm's RegNet"):
        convert(own, tmp_path / "b.pth", to="ours", source_format="timm")


@pytest.mark.parametrize(
    ("to", "name", "message"),
    [
        ("torchvision", "b.pkl", "no .pkl files"), ("pycls", "b.safetensors", "no .safetensors files"),
        ("timm", "b.pyth", "pycls checkpoint by Detectron2"), ("ours", "own.pth", "exists"),
        ("ours", "none/b.pth", "no folder"), ("caffe", "b.pth", "no weight format"),
    ],
)  # fmt: skip
def test_targets_that_make_no_sense(own, tmp_path, to, name, message):
    before = own.read_bytes()
    with pytest.raises(UserError, match=message):
        convert(own, tmp_path / name, to=to)
    assert os.listdir(tmp_path) == ["own.pth"]
    assert own.read_bytes() == before


def test_in_place(own):
    convert(own, own, to="timm", overwrite=True)
    assert convert(own, own.with_name("b.pth"), to="ours").source_format == "timm"
    assert equal(file.read(own.with_name("b.pth")).data["model"], state(TINY, 5))


def test_four_input_channels(tmp_path):
    model = RegNetClassifier("regnetx_200mf", 4, in_channels=4)
    torch.save({"model_state": model.state_dict()}, tmp_path / "a.pyth")
    report = convert(tmp_path / "a.pyth", tmp_path / "b.pth", to="timm")
    assert report.meta.channel_order == ""
    with pytest.raises(UserError, match="4 channels"):
        convert(tmp_path / "a.pyth", tmp_path / "c.pth", to="timm", channel_order="RGB")


def test_group_norm_stays_ours(tmp_path):
    model = build("regnetx_200mf", norm="GN")
    file.save(tmp_path / "a.pth", model.state_dict(), BGR)
    build("regnetx_200mf", norm="GN").load_state_dict(load_backbone(tmp_path / "a.pth", "regnetx_200mf")[0])
    with pytest.raises(UserError, match="batch norm only"):
        convert(tmp_path / "a.pth", tmp_path / "b.pth", to="torchvision")


def test_partial_only_when_allowed(tmp_path):
    some = {name: tensor for name, tensor in state("regnetx_200mf").items() if not name.startswith("s4.b5")}
    torch.save({"model_state": some}, tmp_path / "a.pyth")
    with pytest.raises(UserError, match="stage 4"):
        load_backbone(tmp_path / "a.pyth", "regnetx_200mf")
    assert load_backbone(tmp_path / "a.pyth", "regnetx_200mf", allow_partial=True)[0].keys() == some.keys()


def test_command_line(own, tmp_path):
    run = CliRunner().invoke(main, ["convert", str(own), str(tmp_path / "b.safetensors"), "--to", "timm",
                                    "--channel-order", "rgb"])  # fmt: skip
    assert run.exit_code == 0, run.output
    for text in ("own.pth (ours)", "(timm)", "RGB, the stem's input channels reversed", "classifier of 5 classes"):
        assert text in run.output.replace("\n", " ") or text in re.sub(r"\s+", " ", run.output)
    run = CliRunner().invoke(main, ["convert", str(own), str(tmp_path / "c.pth"), "--to", "nothing"])
    assert run.exit_code == 1
    assert run.output.startswith("error: there is no weight format called 'nothing'")
    assert "Traceback" not in run.output
