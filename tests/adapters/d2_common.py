"""What the Detectron2 tests share: configs made small, the tool as a process, COCO's images if they are there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
CONFIGS = PROJECT / "configs" / "detectron2"
TOOL = PROJECT / "tools" / "train_net.py"

# The smallest detector and images that exercise every part.
SMALL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.FPN.OUT_CHANNELS": "32",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": "100",
    "MODEL.RPN.PRE_NMS_TOPK_TEST": "50",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "50",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "64",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": "1",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",  # Detectron2 prints no numbers when there are no detections
    "TEST.DETECTIONS_PER_IMAGE": "5",
    "INPUT.MIN_SIZE_TRAIN": "(96,)",
    "INPUT.MAX_SIZE_TRAIN": "160",
    "INPUT.MIN_SIZE_TEST": "96",
    "INPUT.MAX_SIZE_TEST": "160",
    "DATALOADER.NUM_WORKERS": "0",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.STEPS": "()",
    "SEED": "1",
}


def overrides(**options: object) -> list[str]:
    """SMALL and ``options`` (their dots written as two underscores) as KEY VALUE arguments."""
    named = SMALL | {key.replace("__", "."): str(value) for key, value in options.items()}
    return [word for pair in named.items() for word in pair]


def environment(datasets: Path | str) -> dict[str, str]:
    return os.environ | {"DETECTRON2_DATASETS": str(datasets), "OMP_NUM_THREADS": "1"}


def start(*arguments: object, datasets: Path | str, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, *map(str, arguments)]
    # In a group of its own, so that Ctrl-C can be sent as a terminal does, to all of its processes.
    return subprocess.Popen(
        command, env=environment(datasets), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd="/", start_new_session=True,
    )  # fmt: skip


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone")
