import pytest

from regnet_backbones.arch import archs, get_arch, identify
from regnet_backbones.design_space import DesignPoint
from regnet_backbones.errors import UserError


def test_family():
    names = list(archs())
    assert len(names) == 12 + 15 + 2 + 3
    assert all(len(arch.stages) == 4 for arch in archs().values())
    assert [name for name in names if name.endswith("_tv")] == [
        "RegNetX-400MF_tv", "RegNetY-800MF_tv", "RegNetY-8.0GF_tv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("canonical", "spellings"),
    [
        ("RegNetY-4.0GF", "regnety_4gf RegNetY-4.0GF regnet_y_4gf regnety_040 regnety-4GF facebook/regnet-y-040"),
        ("RegNetX-400MF", "regnetx_400mf RegNetX-400MF regnet_x_400mf regnetx_004 timm/regnetx_004"),
        ("RegNetX-3.2GF", "regnet_x_3_2gf regnetx_3.2gf regnetx_032 REGNETX_3.2GF"),
        ("RegNetX-400MF_tv", "regnetx_400mf_tv regnetx_004_tv"),
        ("RegNetY-8.0GF_tv", "regnet_y_8gf_tv regnety_080_tv"),
        ("RegNetY-128GF", "regnety_1280 regnet_y_128gf"),
        ("RegNetY-3.2GF", "regnety_3.2gf_tv"),  # both rules agree here
        ("RegNetZ-500MF", "regnetz_005 regnetz_500mf"),
    ],
)
def test_forgiving_names(canonical, spellings):
    assert [get_arch(name).name for name in spellings.split()] == [canonical] * len(spellings.split())


def test_every_name_finds_itself():
    for name, arch in archs().items():
        assert get_arch(name) is arch


def test_torchvision_rule_on_a_size_torchvision_does_not_have():
    assert get_arch("regnetx_4gf_tv").stages[0].width == 120
    assert get_arch("regnetx_4gf").stages[0].width == 80


def test_parameters_of_a_named_one_are_that_one():
    point = DesignPoint(depth=22, w_0=96, w_a=31.41, w_m=2.24, group_width=64, se_ratio=0.25)
    text = "depth=22,w_0=96,w_a=31.41,w_m=2.24,group_width=64,se_ratio=0.25"
    for spec in (point, text, {"DEPTH": 22, "W0": 96, "WA": 31.41, "WM": 2.24, "GROUP_W": 64, "SE_R": 0.25}):
        assert get_arch(spec).name == "RegNetY-4.0GF"


def test_free_point_keeps_its_parameters_as_its_name():
    arch = get_arch("depth=5,w_0=16,w_a=10,w_m=2,group_width=8")
    assert arch.name.startswith("RegNet(depth=5,")
    assert identify(arch) is arch
    assert arch.strides["s1"] == 4


@pytest.mark.parametrize(
    ("wrong", "first"),
    [
        ("regnety_041", "RegNetY-4.0GF"),
        ("regnetx_5gf", "RegNetX-4.0GF"),
        ("regnetz_040_h", "RegNetZ"),
        ("regnty_4gf", "RegNetY-"),
    ],
)
def test_unknown_name_answers_with_the_nearest(wrong, first):
    with pytest.raises(UserError, match=f"'{wrong}'; the nearest are {first}"):
        get_arch(wrong)


def test_neither_name_nor_parameters():
    with pytest.raises(UserError, match="not by 4"):
        get_arch(4)
