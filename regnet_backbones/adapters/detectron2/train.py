"""Detectron2's DefaultTrainer for what it cannot do: CPUs, exact resuming, a clean stop, weights that must fit."""

from __future__ import annotations

import logging
import os
import signal
import threading
import weakref
from argparse import Namespace
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.data.samplers import TrainingSampler
from detectron2.engine import AMPTrainer, DefaultTrainer, HookBase, SimpleTrainer, default_setup
from detectron2.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemSegEvaluator,
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluators,
    LVISEvaluator,
    PascalVOCDetectionEvaluator,
    SemSegEvaluator,
    verify_results,
)
from detectron2.solver import build as solver
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ...errors import UserError
from .checkpoint import RegNetCheckpointer
from .datasets import read_mask

logger = logging.getLogger(__name__)


def _semantic(name: str, folder: str) -> SemSegEvaluator:
    return SemSegEvaluator(name, output_dir=folder, sem_seg_loading_fn=read_mask)


# Metadata's evaluator_type to evaluators, called with the data set's name and a folder.
EVALUATORS = {
    "coco": [lambda name, folder: COCOEvaluator(name, output_dir=folder)],
    "lvis": [lambda name, folder: LVISEvaluator(name, output_dir=folder)],
    "sem_seg": [_semantic],
    "pascal_voc": [lambda name, folder: PascalVOCDetectionEvaluator(name)],
    "cityscapes_instance": [lambda name, folder: CityscapesInstanceEvaluator(name)],
    "cityscapes_sem_seg": [lambda name, folder: CityscapesSemSegEvaluator(name)],
    "coco_panoptic_seg": [
        _semantic,
        lambda name, folder: COCOEvaluator(name, output_dir=folder),
        lambda name, folder: COCOPanopticEvaluator(name, folder),
    ],
}


class ResumableSampler(TrainingSampler):
    """Detectron2's endless shuffle, whose seed is saved and which can start in its middle.

    ``start`` counts the images that all processes together have taken before.
    """

    start = 0

    def __iter__(self) -> Iterator[int]:
        yield from islice(self._infinite_indices(), self.start + self._rank, None, self._world_size)

    def state_dict(self) -> dict[str, int]:
        return {"seed": self._seed, "size": self._size}

    def resume(self, state: dict[str, int], start: int) -> None:
        if state.get("size") == self._size:  # another data set cannot go on where the old one was
            self._seed, self.start = state["seed"], start


class StopOnSignal(HookBase):
    """On Ctrl-C or SIGTERM finishes the iteration, saves a checkpoint to resume from, and stops all processes."""

    def before_train(self) -> None:
        self.asked = False
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, self._ask)

    def after_train(self) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C does not wait
        self.asked = True

    def after_step(self) -> None:
        if not any(comm.all_gather(self.asked)):
            return
        done = self.trainer.iter
        self.trainer.checkpointer.save(f"model_{done:07d}", iteration=done)
        comm.synchronize()  # nobody leaves before the file is whole
        logger.warning("stopped after iteration %d, saved to %s; --resume goes on", done, self.trainer.cfg.OUTPUT_DIR)
        raise KeyboardInterrupt


class Trainer(DefaultTrainer):
    """As Detectron2's ``DefaultTrainer``, and:

    - runs on CPUs, several processes included;
    - loads by :class:`RegNetCheckpointer`;
    - resumes in the middle of the epoch's shuffle (exactly, where ``DATALOADER.ASPECT_RATIO_GROUPING`` is off and
      neither augmentation nor the losses draw random numbers);
    - stops cleanly on Ctrl-C (:class:`StopOnSignal`);
    - knows ``SOLVER.OPTIMIZER ADAMW`` and ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE full_model``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super(DefaultTrainer, self).__init__()  # its own __init__ wraps the model for GPUs only
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        self.cfg = cfg
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        loader = self.build_train_loader(cfg)
        model = distributed(model)
        self._trainer = (AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer)(model, loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = RegNetCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg, trainer=weakref.proxy(self))
        self.start_iter, self.max_iter = 0, cfg.SOLVER.MAX_ITER
        self.register_hooks([*self.build_hooks(), StopOnSignal()])

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
            return build_detection_train_loader(cfg)
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
        sampler = ResumableSampler(len(dataset), seed=cfg.SEED if cfg.SEED >= 0 else None)
        loader = build_detection_train_loader(cfg, dataset=dataset, sampler=sampler)
        loader.resumable_sampler = sampler
        return loader

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        clip = cfg.SOLVER.CLIP_GRADIENTS
        full_model = clip.ENABLED and clip.CLIP_TYPE == "full_model"
        plain = cfg.clone()
        plain.defrost()
        plain.SOLVER.CLIP_GRADIENTS.ENABLED = clip.ENABLED and not full_model
        if cfg.SOLVER.OPTIMIZER.upper() == "ADAMW":
            parameters = solver.get_default_optimizer_params(
                model,
                base_lr=cfg.SOLVER.BASE_LR,
                weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
                bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
                weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
            )
            kind = solver.maybe_add_gradient_clipping(plain, torch.optim.AdamW)
            optimizer = kind(parameters, lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
        else:
            optimizer = solver.build_optimizer(plain, model)
        return _clipped_together(optimizer, clip) if full_model else optimizer

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluators:
        kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
        if kind not in EVALUATORS:
            raise UserError(
                f"the data set {dataset_name} has the evaluator type {kind}, of {', '.join(EVALUATORS)} none; set"
                " DATASETS.TEST () to train without evaluation"
            )
        folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        return DatasetEvaluators([make(dataset_name, folder) for make in EVALUATORS[kind]])

    def resume_or_load(self, resume: bool = True) -> None:
        super().resume_or_load(resume)
        sampler = getattr(self.data_loader, "resumable_sampler", None)
        if not self.start_iter and not self.cfg.MODEL.WEIGHTS and self.cfg.MODEL.BACKBONE.FREEZE_AT:
            logger.warning("MODEL.WEIGHTS is empty: random layers are frozen (MODEL.BACKBONE.FREEZE_AT 0 trains them)")
        if sampler and self.start_iter:
            sampler.resume(self.sampler_state, self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH)

    def state_dict(self) -> dict[str, Any]:
        sampler = getattr(self.data_loader, "resumable_sampler", None)
        return super().state_dict() | {"sampler": sampler.state_dict() if sampler else {}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.sampler_state = state_dict.get("sampler", {})


def distributed(model: nn.Module) -> nn.Module:
    """``model``, for several processes in DDP; on a CPU that may not be told device ids."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).device.type == "cuda"
    return DistributedDataParallel(
        model, device_ids=[comm.get_local_rank()] if on_gpu else None, broadcast_buffers=False
    )


def _clipped_together(optimizer: torch.optim.Optimizer, clip: CfgNode) -> torch.optim.Optimizer:
    def before_step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip.CLIP_VALUE, clip.NORM_TYPE)

    optimizer.register_step_pre_hook(before_step)
    return optimizer


def begin(cfg: CfgNode, args: Namespace) -> None:
    """Detectron2's ``default_setup`` (output folder, logs, seeds), with our own messages in the same log."""
    default_setup(cfg, args)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="regnet_backbones", abbrev_name="regnet")


def main(cfg: CfgNode, args: Namespace) -> Any:
    """What one process does: train, or evaluate with ``args.eval_only``. Returns the evaluation's results."""
    begin(cfg, args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    model = Trainer.build_model(cfg)
    RegNetCheckpointer(model, cfg.OUTPUT_DIR, cfg=cfg).resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
