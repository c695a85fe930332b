"""The catalogue against the facts it was collected from and against the packages installed here."""

import importlib.util
import json
import re

import pytest
from click.testing import CliRunner
from conftest import ROOT, SHARED

from regnet_backbones import get_arch
from regnet_backbones.cli import main
from regnet_backbones.complexity import complexity
from regnet_backbones.errors import UserError
from regnet_backbones.weights.catalogue import TASKS, arch_key, catalogue, find, lookup, nearest
from regnet_backbones.weights.formats import formats
from regnet_backbones.weights.meta import IMAGENET_MEAN, IMAGENET_STD

ROWS = list(catalogue().values())
UNNAMED = {"regnety_10b"}  # the publisher's size of a network that has no name in the family


def tool():
    spec = importlib.util.spec_from_file_location("make_catalogue", ROOT / "tools" / "make_catalogue.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def table(publisher: str) -> dict:
    return json.loads((ROOT / "regnet_backbones/weights/catalogue" / f"{publisher}.json").read_text())


def published_by(publisher: str) -> dict:
    return {row.url: row for row in ROWS if row.publisher == publisher}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_is_well_formed(row):
    key, tag = row.name.rsplit(".", 1)
    assert tag.startswith(f"{row.publisher}_") or tag == f"{row.publisher}"
    if key not in UNNAMED and row.arch:
        assert arch_key(get_arch(row.arch).name) == key
        assert get_arch(key).name == row.arch
    assert row.arch == "" or get_arch(row.arch).stages
    assert row.url.startswith("https://")
    assert row.format in formats()
    assert row.task in TASKS
    assert row.source
    assert row.data
    step = {"RGB": 1, "BGR": -1}[row.channel_order]
    assert row.pixel_mean == IMAGENET_MEAN[::step]
    assert row.pixel_std == IMAGENET_STD[::step]
    assert row.checksum == "" or re.fullmatch(r"sha256:[0-9a-f]{8,64}|md5:[0-9a-f]{6,32}", row.checksum)
    assert (row.box_ap is None) == (row.task != "detector")
    assert row.top1 is None or 60 < row.top1 < 90
    assert row.meta().channel_order == row.channel_order


def test_names_and_addresses_are_unique():
    """Reading into a mapping would hide a row that another one overwrites."""
    tables = [table(publisher)["rows"] for publisher in {row.publisher for row in ROWS}]
    names = [row["name"] for rows in tables for row in rows]
    assert len(names) == len(set(names)) == len(ROWS)
    assert len({row.url for row in ROWS}) == len(ROWS)
    aliases = [row.alias for row in ROWS if row.alias]
    assert len(aliases) == len(set(aliases))


def test_the_hand_kept_table_of_pycls_is_complete(pycls_facts):
    rows = published_by("pycls")
    assert len(pycls_facts) == len(rows) == 24
    for name, fact in pycls_facts.items():
        row = rows[fact["url"]]
        assert row.arch == name
        assert row.top1 == pytest.approx(100 - fact["top1_err"], abs=1e-9)
        assert row.channel_order == "BGR"


def test_published_detectors_are_complete():
    path = SHARED / "facts/published_coco_results.json"
    if not path.exists():
        pytest.skip("needs ../shared/facts beside the project, which is not there")
    facts = [fact for fact in json.loads(path.read_text()) if "regnet" in fact["name"]]
    for fact in facts:
        row = lookup(fact["weights"])
        assert row, fact["name"]
        assert row.config.rsplit("/", 1)[-1] == fact["name"]
        assert row.box_ap == fact.get("box_AP", fact.get("Object Detection"))
        assert row.mask_ap == fact.get("mask_AP", fact.get("Instance Segmentation"))
    assert {fact["weights"] for fact in facts} == {row.url for row in ROWS if row.task == "detector"}


def test_irregular_channel_orders():
    rgb = {row.config for row in ROWS if row.publisher == "mmdet" and row.channel_order == "RGB"}
    assert rgb == {f"mask-rcnn_regnetx-{size}_fpn_ms-poly-3x_coco" for size in ("400MF", "800MF", "1.6GF", "4GF")}
    bgr = {row.name for row in ROWS if row.publisher == "vissl" and row.channel_order == "BGR"}
    assert bgr == {"regnety_64gf.vissl_sup_in1k", "regnety_128gf.vissl_sup_in1k"}
    orders = {row.publisher: row.channel_order for row in ROWS if row.publisher not in ("mmdet", "vissl")}
    assert {publisher for publisher, order in orders.items() if order == "BGR"} == {
        "pycls",
        "openmmlab",
        "mmpretrain",
        "detectron2",
    }


@pytest.mark.parametrize(
    ("publisher", "package"),
    [
        ("torchvision", "torchvision"),
        ("timm", "timm"),
        ("openmmlab", "mmengine"),
        ("mmpretrain", "mmpretrain"),
        ("mmdet", "mmdet"),
    ],
)
def test_table_is_what_the_installed_package_states(publisher, package):
    """A release that moves, adds or drops a file shows here; tools/make_catalogue.py rewrites the table."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    if package.startswith("mm"):
        pytest.importorskip("mmengine")
    stated = json.loads(json.dumps(tool().MAKERS[publisher]()))
    assert table(publisher)["rows"] == stated["rows"]
    assert table(publisher)["common"] == stated["common"]


def test_torchvision_by_its_own_enums():
    """The network named in the row has as many parameters as torchvision says."""
    models = pytest.importorskip("torchvision.models")
    enums = [models.get_model_weights(name) for name in models.list_models() if name.startswith("regnet")]
    rows = published_by("torchvision")
    assert sum(map(len, enums)) == len(rows)
    for weights in (weights for enum in enums for weights in enum):
        row = rows[weights.url]
        assert row.top1 == weights.meta["_metrics"]["ImageNet-1K"]["acc@1"]
        assert complexity(get_arch(row.arch)).params == weights.meta["num_params"]
        assert ("SWAG" in weights.name) == ("NC" in row.licence)


def test_detectron2_addresses_by_its_own_table():
    zoo = pytest.importorskip("detectron2.model_zoo.model_zoo")._ModelZooUrls
    stated = {
        f"{zoo.S3_PREFIX}{config}/{suffix}"
        for config, suffix in zoo.CONFIG_PATH_TO_URL_SUFFIX.items()
        if "regnet" in config
    }
    assert stated == set(published_by("detectron2"))


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("regnety_4gf.pycls_in1k", "regnety_4gf.pycls_in1k"),
        ("regnet://RegNetY-4.0GF.timm_RA3_in1k", "regnety_4gf.timm_ra3_in1k"),
        ("regnet_y_3_2gf.torchvision_v2_in1k", "regnety_3.2gf.torchvision_v2_in1k"),
        ("regnetx_004_tv.timm_tv2_in1k", "regnetx_400mf_tv.timm_tv2_in1k"),
        ("open-mmlab://regnetx_3.2gf", "regnetx_3.2gf.openmmlab_in1k"),
        ("https://download.pytorch.org/models/regnet_y_400mf-c65dace8.pth", "regnety_400mf.torchvision_v1_in1k"),
        ("facebook/regnet-y-040", "regnety_4gf.transformers_in1k"),
    ],
)
def test_a_row_is_found_by_any_spelling(spelling, name):
    assert find(spelling).name == name


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match=r"called 'regnety_4gf\.ra3'; the nearest are regnety_4gf\.timm_ra3_in1k"):
        find("regnet://regnety_4gf.ra3")
    assert all(name.startswith("regnety_3.2gf.") for name in nearest("regnety_3.2gf"))


def run(*args: str):
    result = CliRunner().invoke(main, ["weights", *args])
    return result.exit_code, result.output


def listed(*args: str) -> list[dict]:
    code, output = run("list", *args, "--json")
    assert code == 0
    return json.loads(output)


def test_list_filters():
    assert len(listed()) == len(ROWS)
    strong = listed("--arch", "regnety_040", "--min-top1", "80")
    assert [row["name"] for row in strong] == ["regnety_4gf.timm_ra3_in1k"]
    assert {row["publisher"] for row in listed("--license", "by-sa")} == {"detectron2"}
    assert {row["format"] for row in listed("--format", "mmdet")} == {"mmdet"}
    assert all("top1" not in row for row in listed("--task", "detector"))
    assert len(listed("--task", "detector", "--format", "mmdet")) == 26


def test_list_prints_whole_names():
    code, output = run("list", "--task", "detector", "--arch", "regnetx_400mf")
    assert code == 0
    assert "regnetx_400mf.mmdet_mask-rcnn_fpn_ms-poly-3x_coco" in output
    assert "34.4" in output


def test_show_tells_the_irregularity_and_the_place(monkeypatch, tmp_path):
    monkeypatch.setenv("REGNET_BACKBONES_CACHE", str(tmp_path))
    code, output = run("show", "regnetx_400mf.mmdet_mask-rcnn_fpn_ms-poly-3x_coco")
    assert code == 0
    assert "channel order  RGB" in output
    assert "to be run, with RGB" in output
    assert str(tmp_path) in output


def test_show_of_an_unknown_name_is_one_sentence():
    code, output = run("show", "regnety_4gf")
    assert code == 1
    assert output.startswith("error: there is no published weight called 'regnety_4gf'")
    assert output.count("\n") == 1
