import json

import pytest
import torch

from regnet_backbones import UserError, build
from regnet_backbones.pretrain import pretrain, read_crops
from regnet_backbones.weights.file import read

pytest.importorskip("shapely")
TINY = "depth=4,w_0=16,w_a=16,w_m=2,group_width=8"


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    from regnet_backbones.data.embedded import make

    coco = make(tmp_path_factory.mktemp("data"), num_train=16, num_val=16, size=96) / "coco"
    return [
        read_crops(coco / f"{split}2017", coco / f"annotations/instances_{split}2017.json", size=40)
        for split in ("train", "val")
    ]


def test_crops_are_the_objects(crops):
    train, _ = crops
    assert train.pixels.shape[1:] == (3, 40, 40)
    assert len(train.classes) == 8
    assert set(train.labels.tolist()) == set(range(8))


def test_learns_saves_and_loads(crops, tmp_path):
    train, _ = crops
    path, seen = tmp_path / "pretrained.pth", []
    accuracy = pretrain(
        TINY, train, train, path, iterations=80, batch_size=32, size=32, progress=lambda *done: seen.append(done)
    )
    assert accuracy > 2 / 8  # on what it learned from; a network that does not learn stays near 1 in 8
    assert seen[-1] == (80, 80)
    data = read(path).data
    assert data["regnet_backbones"]["channel_order"] == "BGR"
    trunk = build(TINY)
    trunk.load_state_dict(data["model"])
    assert torch.equal(trunk.stem.conv.weight, data["model"]["stem.conv.weight"])


def test_same_seed_same_weights(crops, tmp_path):
    train, held_out = crops
    for name in "ab":
        pretrain(TINY, train, held_out, tmp_path / name, iterations=3, batch_size=8, size=32, seed=5)
    a, b = (read(tmp_path / name).data["model"] for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_bad_input_is_one_sentence(crops, tmp_path):
    train, held_out = crops
    broken = tmp_path / "instances.json"
    broken.write_text("{")
    with pytest.raises(UserError, match=r"instances\.json is not a COCO annotation file"):
        read_crops(tmp_path, broken, 40)
    broken.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    with pytest.raises(UserError, match="has no object"):
        read_crops(tmp_path, broken, 40)
    with pytest.raises(UserError, match="diverged"):
        pretrain(TINY, train, held_out, tmp_path / "x.pth", iterations=20, size=32, learning_rate=1e30)
    assert not (tmp_path / "x.pth").exists()
