"""A semantic FPN in float64 on images of equal size, trained by our launcher and Trainer; saves every rank's weights.

Started as the tool is, alone, with --num-gpus 2 or under torchrun, with the folder for results in OUTPUT_DIR.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from PIL import Image

from regnet_backbones import UserError
from regnet_backbones.adapters.detectron2.launch import launch, setup
from regnet_backbones.adapters.detectron2.train import Trainer, begin

CLASSES, SIZE, IMAGES = 5, 64, 10
NAME = "semantic_squares"
CONFIG = """
MODEL:
  DEVICE: cpu
  META_ARCHITECTURE: SemanticSegmentor
  BACKBONE: {NAME: build_regnet_fpn_backbone, FREEZE_AT: 0}
  REGNET: {ARCH: regnety_200mf, NORM: FrozenBN}
  FPN: {OUT_CHANNELS: 32}
  SEM_SEG_HEAD: {NUM_CLASSES: 5, CONVS_DIM: 32}
DATASETS: {TRAIN: '("semantic_squares",)', TEST: "()"}
DATALOADER: {NUM_WORKERS: 0, ASPECT_RATIO_GROUPING: False}
INPUT: {RANDOM_FLIP: none, MIN_SIZE_TRAIN: "(64,)"}
SOLVER:
  {IMS_PER_BATCH: 4, BASE_LR: 0.01, WARMUP_ITERS: 0, MAX_ITER: 4, STEPS: "()", CHECKPOINT_PERIOD: 2,
  CLIP_GRADIENTS: {ENABLED: True, CLIP_TYPE: full_model, CLIP_VALUE: 1.0}}
SEED: 3
VERSION: 2
"""


def make(folder: Path) -> None:
    """Noise under a label map without ignored pixels, so that the mean over pixels is that over images."""
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        labels = np.kron(rng.integers(0, CLASSES, (4, 4)), np.ones((SIZE // 4, SIZE // 4))).astype(np.uint8)
        noise = rng.integers(0, 100, (SIZE, SIZE, 3))
        Image.fromarray((labels[..., None] * 30 + noise).astype(np.uint8)).save(folder / f"{index}.png")
        Image.fromarray(labels).save(folder / f"{index}_labels.png")
    (folder / "config.yaml").write_text(CONFIG)


def records() -> list[dict[str, Any]]:
    folder = Path(os.environ["DETECTRON2_DATASETS"])
    return [
        {
            "file_name": str(folder / f"{index}.png"), "sem_seg_file_name": str(folder / f"{index}_labels.png"),
            "height": SIZE, "width": SIZE, "image_id": index,
        }
        for index in range(IMAGES)
    ]  # fmt: skip


# At import, since the processes that spawn starts import this file again.
DatasetCatalog.register(NAME, records)
MetadataCatalog.get(NAME).set(stuff_classes=[str(i) for i in range(CLASSES)], ignore_label=255)


class DoubleTrainer(Trainer):
    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        return super().build_model(cfg).double()


def train(cfg: CfgNode, args: Namespace) -> None:
    begin(cfg, args)
    torch.manual_seed(0)  # the same first weights in every rank, whether or not DDP sees to it
    trainer = DoubleTrainer(cfg)
    trainer.resume_or_load(args.resume)
    trainer.train()
    model = getattr(trainer.model, "module", trainer.model)
    torch.save(model.state_dict(), Path(cfg.OUTPUT_DIR) / f"rank{comm.get_rank()}.pth")


def run() -> int:
    args = default_argument_parser().parse_args()
    try:
        launch(train, setup(args), args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(run())
