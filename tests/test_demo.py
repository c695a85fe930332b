"""`make demo`: its parts in small, and, among the long checks, its claim."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("detectron2")
pytest.importorskip("shapely")

DEMO = Path(__file__).parents[1] / "tools/demo.py"


def demo(out: Path, *args: str) -> dict:
    subprocess.run([sys.executable, str(DEMO), "--out", str(out), *args], check=True, cwd="/", timeout=3600)
    return json.loads((out / "results.json").read_text())


def test_leaves_tables_and_pictures_and_does_not_start_over(tmp_path):
    small = ("--pretrain-iterations", "2", "--iterations", "3", "--images", "16")
    results = demo(tmp_path, *small)
    assert all(len(results[run][kind]) == 12 for run in ("scratch", "transferred") for kind in ("bbox", "segm"))
    for name in ("curves.png", "predictions.png", "results.md", "transferred/config.yaml", "scratch/model_final.pth"):
        assert (tmp_path / name).stat().st_size > 100
    trained = (tmp_path / "transferred/model_final.pth").stat().st_mtime
    assert demo(tmp_path, *small) == results
    assert (tmp_path / "transferred/model_final.pth").stat().st_mtime == trained


@pytest.mark.long
def test_the_transferred_detector_is_clearly_ahead(tmp_path):
    results = demo(tmp_path)
    for kind in ("bbox", "segm"):
        assert results["transferred"][kind]["AP"] > 3 * results["scratch"][kind]["AP"] + 2
