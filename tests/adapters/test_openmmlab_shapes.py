"""Both frameworks read the embedded data set by our configs."""

from __future__ import annotations

import pytest
from conftest import ROOT

pytest.importorskip("mmdet")
pytest.importorskip("mmseg")

from mmengine.config import Config
from mmengine.registry import DATASETS

from regnet_backbones.data.embedded import ADE_CLASSES, THING_CLASSES, make


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return make(tmp_path_factory.mktemp("data"), num_train=8, num_val=2, size=64)


@pytest.mark.parametrize(("framework", "classes"), [("mmdet", THING_CLASSES), ("mmseg", ADE_CLASSES)])
def test_dataset(framework, classes, shapes, monkeypatch):
    monkeypatch.setenv("REGNET_SHAPES_ROOT", str(shapes))
    config = Config.fromfile(next(ROOT.glob(f"configs/{framework}/*regnet-shapes*.py")))
    with DATASETS.switch_scope_and_registry(framework) as registry:
        train, val = (registry.build(config[f"{split}_dataloader"].dataset) for split in ("train", "val"))
    assert train.metainfo["classes"] == tuple(classes)
    assert (len(train), len(val)) == (8, 2)
    samples = [train[i]["data_samples"] for i in range(8)]
    if framework == "mmdet":
        labels = [int(label) for sample in samples for label in sample.gt_instances.labels]
        assert any(len(sample.ignored_instances) for sample in samples), "a crowd"
    else:
        labels = [int(v) for sample in samples for v in sample.gt_sem_seg.data.unique() if v != 255]
    assert set(range(len(THING_CLASSES))) <= set(labels) <= set(range(len(classes)))
