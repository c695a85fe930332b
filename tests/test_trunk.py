import logging

import pytest
import torch
from conftest import randomize, relative
from torch import nn

from regnet_backbones import RegNetClassifier, UserError, build
from regnet_backbones.blocks import StochasticDepth
from regnet_backbones.norms import NORMS, FrozenBatchNorm2d, get_norm

SMALL = "depth=6,w_0=16,w_a=12,w_m=2,group_width=8"  # 3 stages
SE = SMALL + ",se_ratio=0.25"


def image(n=2, size=(64, 96), channels=3, seed=1):
    return torch.randn(n, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twin(trunk, **options):
    """The same weights under other options."""
    other = build(trunk.arch, **options).double()
    other.load_state_dict(trunk.state_dict())
    return other


@pytest.mark.parametrize("name", ["regnetx_200mf", "regnety_200mf", "regnetz_500mf"])
def test_features_have_the_channels_and_strides_they_state(name):
    trunk = build(name, out_features=["stem", "s1", "s2", "s3", "s4"]).eval()
    features = trunk(torch.zeros(1, 3, 97, 131))
    assert list(features) == ["stem", "s1", "s2", "s3", "s4"]
    for feature, x in features.items():
        stride = trunk.strides[feature]
        assert x.shape == (1, trunk.channels[feature], -(-97 // stride), -(-131 // stride))


def test_stages_nobody_asked_for_are_not_built():
    trunk = build("regnetx_200mf", out_features=["s3", "s1"])
    assert trunk.out_features == ("s1", "s3")
    assert not hasattr(trunk, "s4")
    trunk(torch.randn(2, 3, 64, 64))["s3"].sum().backward()
    assert all(p.grad is not None for p in trunk.parameters())


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
def test_dilation_keeps_the_values_of_the_strided_network(output_stride, size):
    strided = randomize(build("regnetx_200mf")).double().eval()
    dilated = twin(strided, output_stride=output_stride).eval()
    ours, theirs = dilated(image(size=size)), strided(image(size=size))
    for name in theirs:
        step = strided.strides[name] // dilated.strides[name]
        assert dilated.strides[name] <= output_stride
        assert relative(ours[name][:, :, ::step, ::step], theirs[name]) < 1e-12


@pytest.mark.parametrize("freeze_at", [0, 1, 3])
def test_frozen_parts_get_no_gradient_and_stay_in_eval_mode(freeze_at):
    trunk = build("regnetx_200mf", freeze_at=freeze_at).train()
    trunk(torch.randn(2, 3, 64, 64))["s4"].sum().backward()
    for i, name in enumerate(["stem", "s1", "s2", "s3", "s4"]):
        part, frozen = getattr(trunk, name), i < freeze_at
        assert all((p.grad is None) == frozen for p in part.parameters())
        assert all(m.training != frozen for m in part.modules())


def test_norm_eval_keeps_statistics_while_the_affine_learns():
    trunk = randomize(build(SE, norm_eval=True)).train()
    before = {k: v.clone() for k, v in trunk.state_dict().items() if "running" in k}
    trunk(torch.randn(2, 3, 64, 64))["s3"].sum().backward()
    assert all(torch.equal(before[k], trunk.state_dict()[k]) for k in before)
    assert trunk.s1.b1.f.a_bn.weight.grad is not None


def test_frozen_bn_equals_bn_in_eval_mode():
    live = randomize(build(SE)).double().eval()
    frozen = twin(live, norm="FrozenBN").train()
    assert not any("bn" in name for name, _ in frozen.named_parameters())
    for name, x in live(image()).items():
        assert relative(frozen(image())[name], x) < 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_every_norm_trains(norm):
    trunk = build("regnety_400mf", norm=norm).train()
    trunk(torch.randn(2, 3, 64, 64))["s4"].square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trunk.parameters())


def test_norms_of_every_width_of_the_family():
    for width in (32, 72, 168, 216, 232, 440, 746, 888, 1088):
        group_norm = get_norm("GN")(width)
        assert width % group_norm.num_groups == 0
        assert group_norm.num_groups > 1
    x = image(channels=24)
    norm = get_norm("LN")(24).double()
    expected = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    assert relative(norm(x), expected) < 1e-12


@pytest.mark.parametrize("norm_eval", [False, True])
def test_checkpointing_changes_neither_gradients_nor_statistics(norm_eval):
    plain = randomize(build(SE, norm_eval=norm_eval)).double().train()
    saving = twin(plain, norm_eval=norm_eval, checkpointing=True).train()
    for trunk in (plain, saving):
        trunk(image())["s3"].square().mean().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert relative(b.grad, a.grad) < 1e-12, name
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean():
    trunk = build(SMALL, drop_path=0.5)
    rates = [m.rate for m in trunk.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
    torch.manual_seed(0)
    dropped = StochasticDepth(0.25).train()(torch.ones(4000, 1, 1, 1))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert torch.equal(trunk.eval()(torch.ones(1, 3, 32, 32))["s3"], trunk(torch.ones(1, 3, 32, 32))["s3"])


def test_input_channels():
    trunk = build(SMALL, in_channels=5).double()
    assert trunk(image(channels=5))["s1"].shape[1] == trunk.channels["s1"]


@pytest.mark.parametrize("output_stride", [None, 16])
@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_no_option_changes_the_names(output_stride, norm):
    plain = build(SE).state_dict()
    other = build(SE, output_stride=output_stride, norm=norm, freeze_at=2, drop_path=0.1, checkpointing=True)
    assert {k: v.shape for k, v in plain.items()} == {k: v.shape for k, v in other.state_dict().items()}


def test_classifier_weights_load_into_a_trunk_and_the_log_tells_what_is_left_out(caplog):
    classifier = randomize(RegNetClassifier(SE, num_classes=7))
    assert classifier(torch.randn(2, 3, 32, 32)).shape == (2, 7)
    trunk = build(SE, out_features=["s2"], norm="FrozenBN")
    with caplog.at_level(logging.INFO):
        trunk.load_state_dict(classifier.state_dict())
    assert "head" in caplog.text
    assert torch.equal(trunk.s2.b1.f.a.weight, classifier.s2.b1.f.a.weight)


class Detector(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.backbone = build(SMALL, **options)
        self.head = nn.Linear(3, 3)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda w: w.pop("backbone.s1.b1.f.a.weight"), "1 of its"),
        (lambda w: w.pop("backbone.s1.b1.f.a_bn.running_var"), "s1.b1.f.a_bn.running_var"),
        (lambda w: w.update({"backbone.s9.weight": torch.ones(3)}), "no place in it (s9.weight)"),
        (
            lambda w: w.update({"backbone.stem.conv.weight": torch.ones(32, 4, 3, 3)}),
            "(32, 4, 3, 3), not (32, 3, 3, 3)",
        ),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("backbone")], "are missing"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_wherever_the_trunk_sits(break_it, said, caplog):
    weights = Detector().state_dict()
    break_it(weights)
    with pytest.raises(UserError) as error:
        Detector().load_state_dict(weights, strict=False)
    assert said in str(error.value)
    lenient = Detector(allow_partial=True)
    lenient.load_state_dict(weights, strict=False)
    assert said in caplog.text


def test_missing_counters_are_no_reason_to_refuse():
    weights = {k: v for k, v in build(SMALL).state_dict().items() if not k.endswith("num_batches_tracked")}
    trunk = build(SMALL)
    trunk.stem.bn.num_batches_tracked += 5
    trunk.load_state_dict(weights)
    assert trunk.stem.bn.num_batches_tracked == 0
    build(SMALL, norm="FrozenBN").load_state_dict(trunk.state_dict())
    trunk.load_state_dict(build(SMALL, norm="FrozenBN").state_dict())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out_features": ["s5"]}, "no feature 's5'; its features are stem, s1, s2, s3"),
        ({"out_features": []}, "an empty list"),
        ({"output_stride": 4}, "output_stride=4"),
        ({"freeze_at": 5}, "freeze_at=5"),
        ({"freeze_at": -1}, "freeze_at=-1"),
        ({"norm": "IN"}, "'IN'; choose one of BN"),
        ({"drop_path": 1.0}, "drop_path=1.0"),
    ],
)
def test_impossible_options(options, said):
    with pytest.raises(UserError) as error:
        build(SMALL, **options)
    assert said in str(error.value)


def test_image_smaller_than_the_deepest_stride():
    with pytest.raises(UserError, match="24x64 pixels, too small for the feature 's4' of stride 32"):
        build("regnetx_200mf")(torch.zeros(1, 3, 24, 64))


def test_frozen_bn_keeps_no_activation_for_the_backward_pass():
    norm, kept = FrozenBatchNorm2d(8), []
    x = torch.randn(2, 8, 16, 16, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        norm(x)
    assert sum(kept) < x.numel()
