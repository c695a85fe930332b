import pytest

from regnet_backbones.design_space import DesignPoint, parse_point, point_from
from regnet_backbones.errors import UserError

X400 = {"depth": 22, "w_0": 24, "w_a": 24.48, "w_m": 2.54, "group_width": 16}


def test_worked_example():
    """w_0=16, w_a=16, w_m=2: u = 16, 32, 48, 64; s = round(log2(u/16)) = 0, 1, 2, 2; so 1, 1 and 2 blocks."""
    stages = DesignPoint(depth=4, w_0=16, w_a=16, w_m=2, group_width=8).stages()
    assert [(s.width, s.depth) for s in stages] == [(16, 1), (32, 1), (64, 2)]


def test_group_width_shrinks_to_the_bottleneck():
    stages = DesignPoint(depth=4, w_0=16, w_a=16, w_m=2, group_width=32).stages()
    assert [s.group_width for s in stages] == [16, 32, 32]


def test_bottleneck_wider_than_the_block_divides_by_both():
    for stage in DesignPoint(depth=6, w_0=24, w_a=20, w_m=2.2, group_width=12, bot_mul=4).stages():
        assert stage.bottleneck_width == 4 * stage.width
        assert stage.bottleneck_width % stage.group_width == 0


@pytest.mark.parametrize(("rounding", "last"), [("pycls", 384), ("torchvision", 400)])
def test_group_rounding_is_a_parameter(rounding, last):
    assert DesignPoint(**X400, group_rounding=rounding).stages()[-1].width == last


def test_spellings_of_the_parameters():
    ours = DesignPoint(**X400)
    vissl = {"DEPTH": 22, "W0": 24, "WA": 24.48, "WM": 2.54, "GROUP_W": 16}
    mmdet = {"w0": 24, "wa": 24.48, "wm": 2.54, "group_w": 16, "depth": 22, "bot_mul": 1.0}
    assert point_from(vissl) == point_from(mmdet) == ours
    assert parse_point("depth=22, w_0=24, w_a=24.48, w_m=2.54, group_width=16") == ours


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"w_m": 1.0}, "w_m=1.0"),
        ({"w_m": 0.5}, "w_m=0.5"),
        ({"w_0": 25}, "w_0=25"),
        ({"w_0": 0}, "w_0=0"),
        ({"w_a": -1}, "w_a=-1"),
        ({"w_a": "fast"}, "w_a=fast"),
        ({"w_a": float("nan")}, "w_a=nan"),
        ({"depth": 0}, "depth=0"),
        ({"depth": 2.5}, "depth=2.5"),
        ({"depth": True}, "depth=True"),
        ({"group_width": 7, "bot_mul": 1.37}, "group_width=7"),
        ({"bot_mul": 0}, "bot_mul=0"),
        ({"se_ratio": 1.5}, "se_ratio=1.5"),
        ({"block": "vit"}, "block=vit"),
        ({"activation": "tanh"}, "activation=tanh"),
        ({"group_rounding": "timm"}, "group_rounding=timm"),
        ({"w_a": 1e300}, "w_a=1e+300"),
        ({"depth": 10**9}, "depth=1000000000"),
        ({"width": 3}, "'width'"),
    ],
)
def test_impossible_parameters_are_refused_with_their_value(change, named):
    with pytest.raises(UserError, match=r"[^\n]+") as error:
        point_from(X400 | change)
    assert named in str(error.value)


def test_missing_twice_and_malformed():
    with pytest.raises(UserError, match="missing: w_m"):
        point_from({key: value for key, value in X400.items() if key != "w_m"})
    with pytest.raises(UserError, match="given twice"):
        point_from(X400 | {"WA": 3})
    with pytest.raises(UserError, match="name=value"):
        parse_point("depth=3,w_0")
