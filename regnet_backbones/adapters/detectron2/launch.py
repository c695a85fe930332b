"""From the command line to running processes: one, several started here, or those that torchrun started."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.engine import default_argument_parser
from detectron2.utils import comm
from torch import multiprocessing

from ...errors import UserError
from .check import check_config
from .config import add_regnet_config
from .train import main

TIMEOUT = timedelta(minutes=30)  # Detectron2's
INTERRUPTED = 130  # a shell's exit code for Ctrl-C


def setup(args: Namespace) -> CfgNode:
    """The checked, frozen config of ``args.config_file`` with ``args.opts`` on top.

    Raises:
        UserError: anything wrong with the file, the overrides or what they describe.
    """
    cfg = get_cfg()
    add_regnet_config(cfg)
    if args.config_file:
        if not os.path.isfile(args.config_file):
            raise UserError(f"there is no config file '{args.config_file}'; correct --config-file")
        _merge(args.config_file, cfg.merge_from_file, args.config_file)
    if len(args.opts) % 2:
        raise UserError(f"overrides are pairs of KEY VALUE, but '{args.opts[-1]}' stands alone; give its value")
    _merge("the command line", cfg.merge_from_list, args.opts)
    check_config(cfg, process_count(args), evaluates_only=args.eval_only)
    cfg.freeze()
    return cfg


def _merge(source: str, merge: Callable[[Any], None], what: Any) -> None:
    try:
        merge(what)
    except (KeyError, ValueError, AssertionError, OSError, yaml.YAMLError) as error:
        text = " ".join(str(error.args[0] if error.args else error).split())
        raise UserError(f"the config does not take what {source} says: {text}") from error


def under_torchrun() -> bool:
    """Whether torchrun, or another launcher with its environment variables, started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys()


def process_count(args: Namespace) -> int:
    """Number of processes on all machines."""
    if under_torchrun():
        return int(os.environ["WORLD_SIZE"])
    return max(args.num_gpus, 1) * args.num_machines


def launch(function: Callable[..., Any], cfg: CfgNode, args: Namespace) -> Any:
    """Run ``function(cfg, args)`` in every process, with Detectron2's process groups: nccl on GPUs, else gloo.

    ``args.num_gpus`` is the number of processes per machine, also for ``MODEL.DEVICE cpu``.

    Raises:
        UserError: the first one that a process raised.
        KeyboardInterrupt: the processes were stopped.
    """
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
    if under_torchrun():
        rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
        local_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        return _in_group(function, cfg, args, on_gpu, "env://", rank, local_rank, local_size)
    if on_gpu and args.num_gpus > torch.cuda.device_count():
        raise UserError(f"--num-gpus {args.num_gpus} asks for more GPUs than the {torch.cuda.device_count()} there are")
    if process_count(args) == 1:
        return function(cfg, args)
    _spawn(function, cfg, args, on_gpu)
    return None


def _in_group(
    function: Callable[..., Any], cfg: CfgNode, args: Namespace,
    on_gpu: bool, url: str, rank: int, local_rank: int, local_size: int,
) -> Any:  # fmt: skip
    if on_gpu:
        torch.cuda.set_device(local_rank)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, url, TIMEOUT, process_count(args), rank)
    try:
        comm.create_local_process_group(local_size)
        return function(cfg, args)
    finally:
        dist.destroy_process_group()


def _spawn(function: Callable[..., Any], cfg: CfgNode, args: Namespace, on_gpu: bool) -> None:
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    context = multiprocessing.start_processes(
        _worker, (function, cfg, args, on_gpu, errors), nprocs=args.num_gpus, join=False
    )
    interrupted = False
    while True:
        try:
            if context.join():
                break
        except KeyboardInterrupt:
            interrupted = True
            for process in context.processes:  # a terminal has told them as well; to be told twice is no harm
                if process.is_alive():
                    os.kill(process.pid, signal.SIGTERM)
        except multiprocessing.ProcessExitedException as error:
            if not errors.empty():
                raise UserError(errors.get()) from error
            if interrupted or error.exit_code == INTERRUPTED:
                raise KeyboardInterrupt from error
            raise


def _worker(
    local_rank: int, function: Callable[..., Any], cfg: CfgNode, args: Namespace, on_gpu: bool, errors: Any
) -> None:
    if not on_gpu:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // args.num_gpus))
    rank = args.machine_rank * args.num_gpus + local_rank
    try:
        _in_group(function, cfg, args, on_gpu, args.dist_url, rank, local_rank, args.num_gpus)
    except UserError as error:
        errors.put(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def run(argv: Sequence[str] | None = None) -> int:
    """The command: Detectron2's arguments in, exit code out. A UserError is told in one line, without a traceback."""
    try:
        args = default_argument_parser().parse_args(argv)
        launch(main, setup(args), args)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0
