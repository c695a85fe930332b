#!/usr/bin/env python
"""The main job on embedded data: pretrain a RegNetX-200MF, fine-tune a Mask R-CNN from it, and one from scratch.

    make demo        or        python tools/demo.py [--out demo] [--iterations 200]

Leaves in the folder: both AP tables (results.md, results.json), the learning curves (curves.png), predicted masks
(predictions.png) and, per run, the config, log and checkpoints that tools/train_net.py takes. An interrupted demo
goes on where it stopped when it is started again; a finished one prints its results.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs/detectron2/regnet_shapes/mask_rcnn_regnetx_200mf.yaml"
ARCH = "regnetx_200mf"
RUNS = {"scratch": "from scratch", "transferred": "transferred"}
KINDS = {"bbox": "boxes", "segm": "masks"}
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
CURVES = ("curves.png", "predictions.png")
COLOURS = {"scratch": "#888888", "transferred": "#d1495b"}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "demo", help="folder for data and results")
    parser.add_argument("--pretrain-iterations", type=int, default=600, help="batches of 64 crops")
    parser.add_argument("--iterations", type=int, default=240, help="batches of 8 images, in each of the two runs")
    parser.add_argument("--images", type=int, default=640, help="training images; an eighth more is held out")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


class Bars:
    """One bar per stage and one for the whole demo, whose time left counts the stages by their usual length."""

    SHARES: ClassVar = {"data": 0.04, "pretrain": 0.28, "scratch": 0.33, "transferred": 0.33, "pictures": 0.02}

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.progress = Progress(
            TextColumn("{task.description:<44}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        self.whole = self.progress.add_task("[bold]demo", total=1.0)
        self.before = 0.0

    def stage(self, name: str, description: str) -> Any:
        """A function (done, total) that moves this stage's bar."""
        task = self.progress.add_task(description, total=None)
        if not self.progress.console.is_terminal:  # a log gets a line per stage, as bars need a terminal
            print(description, flush=True)
        before, share = self.before, self.SHARES[name]
        self.before += share

        def advance(done: int, total: int) -> None:
            self.progress.update(task, completed=done, total=total)
            self.progress.update(self.whole, completed=before + share * done / total)

        return advance


def pretrained(args: argparse.Namespace, data: Path, advance: Any) -> Path:
    from regnet_backbones.pretrain import pretrain, read_crops

    path = args.out / "pretrain" / f"{ARCH}.pth"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        sets = [
            read_crops(data / "coco" / f"{split}2017", data / f"coco/annotations/instances_{split}2017.json", size=80)
            for split in ("train", "val")
        ]
        pretrain(ARCH, *sets, path, iterations=args.pretrain_iterations, seed=args.seed, progress=advance)
    advance(1, 1)
    return path


def finetuned(args: argparse.Namespace, run: str, weights: Path | None, advance: Any) -> dict[str, dict[str, float]]:
    """Train and evaluate one detector; returns COCO's twelve numbers for boxes and for masks."""
    import torch
    from detectron2.engine import HookBase, default_argument_parser
    from detectron2.utils.env import seed_all_rng

    from regnet_backbones.adapters.detectron2.launch import setup
    from regnet_backbones.adapters.detectron2.train import Trainer

    class Advance(HookBase):
        def after_step(self) -> None:
            advance(self.trainer.iter + 1, self.trainer.max_iter)

    folder = args.out / run
    scores = folder / "scores.json"
    if scores.exists():
        advance(1, 1)
        return json.loads(scores.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    steps = max(args.iterations // 3, 1)
    options = {
        "MODEL.WEIGHTS": str(weights or ""),
        "SOLVER.MAX_ITER": args.iterations,
        "SOLVER.STEPS": f"({args.iterations * 4 // 5},)",
        "SOLVER.CHECKPOINT_PERIOD": steps,
        "TEST.EVAL_PERIOD": steps,
        "SEED": args.seed + 1,
        "OUTPUT_DIR": str(folder),
    }
    opts = [str(item) for pair in options.items() for item in pair]
    cfg = setup(default_argument_parser().parse_args(["--config-file", str(CONFIG), *opts]))
    (folder / "config.yaml").write_text(cfg.dump())
    log_to(folder / "log.txt")
    seed_all_rng(cfg.SEED)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        trainer = Trainer(cfg)
        trainer.model.to(memory_format=torch.channels_last)  # a seventh faster on a CPU
        trainer.resume_or_load(resume=True)
        trainer.register_hooks([Advance()])
        trainer.train()
        results = twelve_numbers(args.out, folder)
    scores.write_text(json.dumps(results, indent=2))
    return results


def log_to(path: Path) -> None:
    """Everything that is told goes to the run's log; the screen belongs to the bars."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("[%(asctime)s %(name)s] %(message)s"))
    for name in ("detectron2", "fvcore", "regnet_backbones", "py.warnings", "torch"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.WARNING if name == "torch" else logging.INFO)


def twelve_numbers(out: Path, folder: Path) -> dict[str, dict[str, float]]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(out / "regnet_shapes/coco/annotations/instances_val2017.json"))
    found = truth.loadRes(str(folder / "inference/coco_instances_results.json"))
    results = {}
    for kind in KINDS:
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        results[kind] = {metric: 100 * float(value) for metric, value in zip(METRICS, evaluation.stats, strict=True)}
    return results


def draw_curves(args: argparse.Namespace, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, (losses, aps) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for run, label in RUNS.items():
        rows = [json.loads(line) for line in (args.out / run / "metrics.json").read_text().splitlines()]
        for axes, key in ((losses, "total_loss"), (aps, "bbox/AP"), (aps, "segm/AP")):
            points = {row["iteration"] + 1: row[key] for row in rows if key in row}
            masks = key.startswith("segm")
            axes.plot(
                *zip(*sorted(points.items()), strict=True), color=COLOURS[run], linestyle="--" if masks else "-",
                marker="o" if axes is aps else None, markersize=4, label=label + (" (masks)" if masks else ""),
            )  # fmt: skip
    losses.set(title="training loss", xlabel="iteration", ylim=(0, None))
    aps.set(title="COCO AP on held-out images", xlabel="iteration", ylabel="%", ylim=(0, None))
    for axes in (losses, aps):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    losses.legend(frameon=False)
    aps.legend(frameon=False)
    figure.suptitle(f"Mask R-CNN, RegNetX-200MF, {args.iterations} iterations: pretrained backbone against random one")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def draw_predictions(args: argparse.Namespace, path: Path, count: int = 5, score: float = 0.2) -> None:
    """One column per held-out image: the truth, what the scratch run finds, what the transferred one finds."""
    import matplotlib

    matplotlib.use("agg")
    import numpy as np
    import torch
    from matplotlib import pyplot as plt
    from PIL import Image
    from pycocotools.coco import COCO
    from torchvision.ops import nms
    from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

    coco = args.out / "regnet_shapes/coco"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(coco / "annotations/instances_val2017.json"))
        found = {run: truth.loadRes(str(args.out / run / "inference/coco_instances_results.json")) for run in RUNS}
    names = {category["id"]: category["name"] for category in truth.loadCats(truth.getCatIds())}
    palette = {key: tuple(int(255 * c) for c in plt.cm.tab10(i)[:3]) for i, key in enumerate(names)}
    images = [i for i in truth.getImgIds() if len(truth.getAnnIds(i, iscrowd=False)) >= 3][:count]
    figure, grid = plt.subplots(3, count, figsize=(2.4 * count, 7.4), layout="constrained")
    for axes, title in zip(grid[:, 0], ("truth", *RUNS.values()), strict=True):
        axes.set_ylabel(title, fontsize=11)
    for column, image_id in zip(grid.T, images, strict=True):
        picture = Image.open(coco / "val2017" / truth.loadImgs(image_id)[0]["file_name"]).convert("RGB")
        for axes, source in zip(column, (truth, *(found[run] for run in RUNS)), strict=True):
            things = [
                a for a in source.loadAnns(source.getAnnIds(image_id, iscrowd=False)) if a.get("score", 1) > score
            ]
            pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)
            boxes = torch.tensor([a["bbox"] for a in things]).reshape(-1, 4)
            boxes[:, 2:] += boxes[:, :2]
            if source is not truth:  # of several classes for one thing, the likeliest
                kept = nms(boxes, torch.tensor([a["score"] for a in things]), 0.5).tolist()
                things, boxes = [things[i] for i in kept], boxes[kept]
            colours = [palette[a["category_id"]] for a in things]
            for annotation, colour in zip(things, colours, strict=True):  # one by one: overlaps would turn black
                mask = torch.from_numpy(source.annToMask(annotation)).bool()
                pixels = draw_segmentation_masks(pixels, mask, alpha=0.55, colors=[colour])
            if things:
                pixels = draw_bounding_boxes(pixels, boxes, colors=colours, width=1)
            axes.imshow(pixels.permute(1, 2, 0))
            for annotation in things:
                x, y = annotation["bbox"][:2]
                axes.text(x + 1, y + 1, names[annotation["category_id"]], color="white", fontsize=6, va="top",
                          bbox={"facecolor": "black", "alpha": 0.6, "pad": 0.5, "linewidth": 0})  # fmt: skip
            axes.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(args: argparse.Namespace, results: dict[str, dict[str, dict[str, float]]], seconds: float) -> None:
    import torch
    from rich.console import Console
    from rich.table import Table

    facts = (
        f"{args.iterations} iterations of 8 images, {args.pretrain_iterations} of 64 crops for pretraining, seed"
        f" {args.seed}; torch {torch.__version__}, {os.cpu_count()} CPU cores, {platform.machine()}; {seconds:.0f} s"
    )
    columns = [(kind, run) for kind in KINDS for run in RUNS]
    table = Table(title="COCO metrics on held-out images (%)", title_justify="left")
    table.add_column("metric")
    for kind, run in columns:
        table.add_column(f"{KINDS[kind]}, {RUNS[run]}", justify="right")
    heading = " | ".join(f"{KINDS[kind]}, {RUNS[run]}" for kind, run in columns)
    lines = ["# Transfer on the embedded data set", "", f"Mask R-CNN, RegNetX-200MF. {facts}.", ""]
    lines += [f"| metric | {heading} |", "|---" + "|---:" * len(columns) + "|"]
    for metric in METRICS:
        values = [f"{results[run][kind][metric]:.1f}" for kind, run in columns]
        table.add_row(metric, *values)
        lines.append(f"| {metric} | " + " | ".join(values) + " |")
    lines.append("")
    console = Console()
    console.print(table)
    lines += [f"![{name}]({name})" for name in CURVES]
    (args.out / "results.md").write_text("\n".join(lines) + "\n")
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    console.print(f"Tables, curves and pictures: {args.out} (results.md, {', '.join(CURVES)})", soft_wrap=True)
    again = f"python tools/train_net.py --config-file {args.out}/transferred/config.yaml --eval-only --resume"
    console.print(f"One run again, by hand: DETECTRON2_DATASETS={args.out} {again}", soft_wrap=True)


def demo(args: argparse.Namespace) -> None:
    from regnet_backbones.data.embedded import make

    start = time.monotonic()
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")  # of the frameworks, about each other's versions
    log_to(args.out / "log.txt")
    # Detectron2's catalog reads it when it is imported, which is why nothing above imports detectron2.
    os.environ["DETECTRON2_DATASETS"] = str(args.out)
    held_out = max(args.images // 8, 16)  # every class is in 16 images
    bars = Bars()
    with bars.progress:
        advance = bars.stage("data", f"making {args.images} + {held_out} images of shapes")
        data = make(args.out, num_train=args.images, num_val=held_out, seed=args.seed, progress=advance)
        advance(1, 1)
        weights = pretrained(args, data, bars.stage("pretrain", "pretraining RegNetX-200MF on crops"))
        results = {
            run: finetuned(args, run, start_from, bars.stage(run, f"Mask R-CNN, backbone {label}"))
            for (run, label), start_from in zip(RUNS.items(), (None, weights), strict=True)
        }
        advance = bars.stage("pictures", "drawing curves and masks")
        draw_curves(args, args.out / "curves.png")
        draw_predictions(args, args.out / "predictions.png")
        advance(1, 1)
    report(args, results, time.monotonic() - start)


def main() -> int:
    from regnet_backbones.errors import UserError

    try:
        demo(parse())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
