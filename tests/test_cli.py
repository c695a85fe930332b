import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from regnet_backbones.cli import main


def run(*args: str):
    return CliRunner().invoke(main, args)


def test_archs_lists_the_family():
    result = run("archs")
    assert result.exit_code == 0
    assert "RegNetX-400MF_tv" in result.output
    assert "RegNetZ-4.0GF" in result.output


def test_archs_json_is_exact(pycls_facts):
    facts = {fact["name"]: fact for fact in json.loads(run("archs", "--json").output)}
    for name, published in pycls_facts.items():
        assert {key: facts[name][key] for key in ("params", "flops", "acts")} == {
            key: published[key] for key in ("params", "flops", "acts")
        }


def test_describe_a_name_and_a_point():
    by_name = json.loads(run("describe", "regnety_040", "--size", "800x1333", "--json").output)
    assert by_name["features"]["s4"]["height"] == 25
    assert by_name["features"]["s4"]["width"] == 42
    assert by_name["widths"] == [128, 192, 512, 1088]
    text = run("describe", "depth=5,w_0=16,w_a=10,w_m=2,group_width=8").output
    assert "w_a=10.0" in text
    assert "s1" in text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("describe", "regnety_41gf"), "'regnety_41gf'; the nearest are RegNetY-32GF"),
        (("describe", "depth=5,w_0=16,w_a=10,w_m=1,group_width=8"), "w_m=1.0"),
        (("describe", "regnety_4gf", "--size", "big"), "--size big"),
        (("archs", "--size", "0x0"), "0x0"),
    ],
)
def test_bad_input_is_one_sentence(args, said):
    result = run(*args)
    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert said in result.output
    assert result.output.count("\n") == 1


def test_scripts_run_by_their_name():
    scripts = sorted((Path(__file__).parents[1] / "tools").glob("*.[ps][yh]"))
    assert len(scripts) >= 6
    assert [path.name for path in scripts if not os.access(path, os.X_OK)] == []
