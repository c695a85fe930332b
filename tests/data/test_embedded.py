"""The embedded data set: COCO's own reader, the masks and the panoptic pictures must tell one story."""

import hashlib
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from regnet_backbones.data import embedded, shapes
from regnet_backbones.errors import UserError

SMALL = {"num_train": 48, "num_val": 16}
TINY = {"num_train": 3, "num_val": 2, "size": 96}
SPLITS = {"train": ("training", "ADE_train"), "val": ("validation", "ADE_val")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return embedded.make(tmp_path_factory.mktemp("data"), **SMALL)


@pytest.fixture(scope="module")
def coco(folder):
    api = pytest.importorskip("pycocotools.coco")
    names = {split: folder / f"coco/annotations/instances_{split}2017.json" for split in SPLITS}
    return {split: api.COCO(str(name)) for split, name in names.items()}


def _digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _ade_mask(folder, split, index):
    phase, prefix = SPLITS[split]
    return Image.open(folder / f"ADEChallengeData2016/annotations/{phase}/{prefix}_{index + 1:08d}.png")


def _ade_labels(folder, split, index):
    return np.asarray(_ade_mask(folder, split, index))


def _panoptic(folder, split):
    """(record, ids (H, W)) of every image, in the order in which they were made."""
    data = json.loads((folder / f"coco/annotations/panoptic_{split}2017.json").read_text())
    for record in data["annotations"]:
        path = folder / f"coco/annotations/panoptic_{split}2017" / record["file_name"]
        rgb = np.asarray(Image.open(path)).astype(int)
        yield record, rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def _iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    first, again, other = (
        _digests(embedded.make(tmp_path / name, seed=seed, **TINY)) for name, seed in (("a", 5), ("b", 5), ("c", 6))
    )
    assert first == again
    assert first.keys() == other.keys()
    images = [name for name in first if name.endswith(".jpg")]
    assert len(images) == 2 * (TINY["num_train"] + TINY["num_val"])
    assert all(first[name] != other[name] for name in images)


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path, folder):
    fewer = embedded.make(tmp_path, num_train=4, num_val=2)
    pictures = {name: digest for name, digest in _digests(fewer).items() if name.endswith((".jpg", ".png"))}
    assert pictures.items() <= _digests(folder).items()


def test_both_layouts_show_the_same_images_in_various_formats(folder, coco):
    shown = []
    for split, (phase, prefix) in SPLITS.items():
        for index, image in enumerate(coco[split].dataset["images"]):
            assert re.fullmatch(r"\d{12}\.jpg", image["file_name"])
            path = folder / f"coco/{split}2017" / image["file_name"]
            twin = folder / f"ADEChallengeData2016/images/{phase}/{prefix}_{index + 1:08d}.jpg"
            assert path.read_bytes() == twin.read_bytes()
            shown.append(Image.open(path))
            mask = _ade_mask(folder, split, index)
            assert shown[-1].size == (image["width"], image["height"]) == mask.size
            assert mask.mode == "L"
    assert {image.mode for image in shown} == {"RGB", "L"}
    assert len({image.size for image in shown}) > len(shown) / 2
    portrait = sum(image.height > image.width for image in shown)
    assert 0 < portrait < len(shown)


def test_ids_are_unique_and_categories_have_gaps(coco):
    images = [image["id"] for api in coco.values() for image in api.dataset["images"]]
    annotations = [record["id"] for api in coco.values() for record in api.dataset["annotations"]]
    assert len(set(images)) == len(images)
    assert len(set(annotations)) == len(annotations)
    for api in coco.values():
        names = {category["name"]: category["id"] for category in api.dataset["categories"]}
        assert names == embedded.THING_IDS
    ids = [*embedded.THING_IDS.values(), *embedded.STUFF_IDS.values()]
    assert ids == sorted(set(ids))
    assert ids != list(range(1, len(ids) + 1))


@pytest.mark.parametrize("split", SPLITS)
def test_every_class_and_both_kinds_of_annotation_occur(folder, coco, split):
    records = coco[split].dataset["annotations"]
    single = {record["category_id"] for record in records if not record["iscrowd"]}
    assert single == set(embedded.THING_IDS.values())
    assert any(record["iscrowd"] for record in records)
    labels = set()
    for index in range(len(coco[split].dataset["images"])):
        labels |= set(np.unique(_ade_labels(folder, split, index)).tolist())
    assert labels == set(range(len(embedded.ADE_CLASSES) + 1))


def test_some_image_of_train_has_no_annotation(coco):
    api = coco["train"]
    empty = [image for image in api.getImgIds() if not api.getAnnIds(image)]
    assert len(empty) == 1  # of 48; one in 40


def test_sizes_cover_small_medium_and_large(coco):
    records = [r for r in coco["train"].dataset["annotations"] if not r["iscrowd"]]
    areas = np.array([record["area"] for record in records])
    shares = [np.mean(areas < 32**2), np.mean((areas >= 32**2) & (areas < 96**2)), np.mean(areas >= 96**2)]
    assert min(shares) > 0.01
    assert max(shares) < 0.75
    assert areas.max() / areas.min() > 100
    sides = []
    for record in records:
        image = coco["train"].imgs[record["image_id"]]
        sides.append(math.sqrt(record["bbox"][2] * record["bbox"][3] / image["width"] / image["height"]))
    assert 0.18 < np.median(sides) < 0.3


@pytest.mark.parametrize("split", SPLITS)
def test_polygons_boxes_and_areas_agree_with_the_masks(folder, coco, split):
    """pycocotools' masks against the labels of the ADE20K layout, and the record's own box and area."""
    overlaps, gaps = [], []
    for index, image in enumerate(coco[split].dataset["images"]):
        labels = _ade_labels(folder, split, index)
        for record in coco[split].loadAnns(coco[split].getAnnIds(image["id"])):
            mask = coco[split].annToMask(record).astype(bool)
            name = coco[split].cats[record["category_id"]]["name"]
            overlaps.append((labels[mask] == embedded.ADE_CLASSES.index(name) + 1).mean())
            ys, xs = np.nonzero(mask)
            found = [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            gaps.append(np.abs(np.subtract(found, record["bbox"])).max())
            assert gaps[-1] <= (0 if record["iscrowd"] else 5)  # pixels miss the tips of stars and crescents
            edge = 0 if record["iscrowd"] else 0.6 * sum(_perimeters(record))
            assert abs(mask.sum() - record["area"]) <= edge
            assert record["area"] <= record["bbox"][2] * record["bbox"][3] + 0.1
    assert np.mean(overlaps) > 0.97
    assert min(overlaps) > 0.75
    assert np.mean(gaps) < 1


def _perimeters(record):
    for polygon in record["segmentation"]:
        assert len(polygon) >= 6
        assert len(polygon) % 2 == 0
        points = np.reshape(polygon, (-1, 2))
        yield np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1).sum()


@pytest.mark.parametrize("split", SPLITS)
def test_panoptic_pictures_agree_with_instances_and_with_ade(folder, coco, split):
    names = {number: name for name, number in (embedded.THING_IDS | embedded.STUFF_IDS).items()}
    overlaps = []
    for index, (record, ids) in enumerate(_panoptic(folder, split)):
        segments = record["segments_info"]
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in segments}
        painted = np.zeros_like(ids)
        for segment in segments:
            painted[ids == segment["id"]] = embedded.ADE_CLASSES.index(names[segment["category_id"]]) + 1
            assert segment["area"] == (ids == segment["id"]).sum()
        np.testing.assert_array_equal(painted, _ade_labels(folder, split, index))
        things = [s for s in segments if s["category_id"] in embedded.THING_IDS.values()]
        instances = coco[split].loadAnns(coco[split].getAnnIds(record["image_id"]))
        assert [(s["category_id"], s["iscrowd"]) for s in things] == [
            (i["category_id"], i["iscrowd"]) for i in instances
        ]
        for segment, instance in zip(things, instances, strict=True):
            mask = coco[split].annToMask(instance).astype(bool)
            overlaps.append(_iou(mask, ids == segment["id"]))
            if instance["iscrowd"]:
                assert overlaps[-1] == 1
                assert segment["bbox"] == instance["bbox"]
    assert np.mean(overlaps) > 0.95
    assert min(overlaps) > 0.75


def test_panoptic_categories_name_things_and_stuff(folder):
    data = json.loads((folder / "coco/annotations/panoptic_val2017.json").read_text())
    kinds = {category["id"]: category["isthing"] for category in data["categories"]}
    assert kinds == dict.fromkeys(embedded.THING_IDS.values(), 1) | dict.fromkeys(embedded.STUFF_IDS.values(), 0)


def test_occluded_things_are_annotated_by_their_visible_part(coco):
    """No pixel belongs to two instances, but for the rounding of borders."""
    api = coco["val"]
    for image in api.getImgIds():
        masks = [api.annToMask(record) for record in api.loadAnns(api.getAnnIds(image))]
        if masks:
            assert (np.sum(masks, axis=0) > 1).mean() < 0.01


@pytest.mark.parametrize("name", embedded.THING_CLASSES)
def test_cutting_holes_keeps_the_area(name):
    holes = [box(-0.2, -0.1, -0.05, 0.1), box(0.1, -0.1, 0.2, 0.1), box(0.15, -0.15, 0.3, -0.12)]
    outline = shapes.OUTLINES[name]
    for hole in holes:
        outline = outline.difference(hole)
    whole = shapes.affinity.scale(outline, 100, 100)
    parts = [part for piece in shapes.pieces(whole) for part in shapes.without_holes(piece)]
    assert not any(part.interiors for part in parts)
    assert sum(part.area for part in parts) == pytest.approx(whole.area, rel=1e-3)


def test_colour_does_not_tell_the_class(folder, coco):
    """Nearest class mean over the things' mean colours, leave-one-out, stays near chance (1 in 8)."""
    colours, labels = [], []
    for image in coco["train"].dataset["images"]:
        pixels = np.asarray(Image.open(folder / "coco/train2017" / image["file_name"]).convert("RGB"), float)
        for record in coco["train"].loadAnns(coco["train"].getAnnIds(image["id"], iscrowd=False)):
            colours.append(pixels[coco["train"].annToMask(record) > 0].mean(0))
            labels.append(record["category_id"])
    colours, labels = np.array(colours), np.array(labels)
    hits = 0
    for i, label in enumerate(labels):
        rest = np.arange(len(labels)) != i
        means = {k: colours[rest & (labels == k)].mean(0) for k in np.unique(labels)}
        hits += min(means, key=lambda k: np.linalg.norm(means[k] - colours[i])) == label
    assert hits / len(labels) < 0.25


def test_progress_counts_every_image_and_a_second_make_returns_at_once(tmp_path):
    calls = []
    folder = embedded.make(tmp_path, **TINY, progress=lambda *call: calls.append(call))
    assert calls == [(done, 5) for done in range(1, 6)]
    before = _digests(folder)
    assert embedded.make(tmp_path, **TINY, progress=lambda *call: calls.append(call)) == folder
    assert len(calls) == 5
    assert _digests(folder) == before


@pytest.mark.parametrize("other", [{"num_train": 4}, {"num_val": 1}, {"size": 97}, {"seed": 1}])
def test_a_folder_made_with_other_parameters_is_refused_and_left_alone(tmp_path, other):
    before = _digests(embedded.make(tmp_path, **TINY))
    (name, value), *_ = other.items()
    with pytest.raises(UserError, match=rf"made with {name}=\d+, not {name}={value}.*choose another folder"):
        embedded.make(tmp_path, **(TINY | other))
    assert _digests(tmp_path / "regnet_shapes") == before


def test_a_foreign_folder_of_that_name_is_refused(tmp_path):
    (tmp_path / "regnet_shapes").mkdir()
    with pytest.raises(UserError, match=r"has no readable regnet_shapes\.json"):
        embedded.make(tmp_path, **TINY)
    assert list((tmp_path / "regnet_shapes").iterdir()) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_make_leaves_nothing_behind(tmp_path, interruption):
    def stop(done, total):
        if done == 4:
            raise interruption

    with pytest.raises(interruption):
        embedded.make(tmp_path, **TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"num_train": 0}, {"num_val": 1.5}, {"size": 32}, {"seed": -1}, {"seed": True}])
def test_impossible_parameters_are_named(tmp_path, wrong):
    (name, value), *_ = wrong.items()
    with pytest.raises(UserError, match=f"{name} must be an integer .* not {value}"):
        embedded.make(tmp_path, **(TINY | wrong))


def test_a_root_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the embedded data to .*file"):
        embedded.make(tmp_path / "file", **TINY)
