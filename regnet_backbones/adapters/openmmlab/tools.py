"""What ``tools/train.py`` and ``tools/test.py`` add to the scripts that MMDetection and MMSegmentation ship.

Those scripts run unchanged. Around them: the right one is found by the config, processes started by ``torchrun``
form their group on CPUs too, one ``data_root`` moves the whole data set, and mistakes are told in one sentence.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from ...errors import UserError
from .data import broken_annotation, check_data, moved_data

FRAMEWORKS = {"mmdet": "MMDetection", "mmseg": "MMSegmentation"}


def main(task: str, argv: list[str]) -> int:
    """Runs the framework's ``task``, ``train`` or ``test``, with its own arguments; returns the exit status."""
    try:
        _run(task, argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        again = "; the same command with --resume goes on from the last checkpoint" if task == "train" else ""
        print(f"interrupted{again}", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def _run(task: str, argv: list[str]) -> None:
    config = _load(_config_in(argv, task))
    script = _script(config, task)
    sys.argv = [f"{task}.py", *argv]
    args = script.parse_args()
    options = args.cfg_options or {}
    args.cfg_options = moved_data(config, options.get("data_root")) | options
    config.merge_from_dict(args.cfg_options)
    _check(config, args, task)
    _join_processes(config, args)
    script.parse_args = lambda: args  # what its main() starts with
    try:
        script.main()
    except (FileNotFoundError, NotADirectoryError) as error:  # a worker's comes with the worker's traceback in it
        raise UserError(str(error).strip().splitlines()[-1]) from error
    except ValueError as error:
        broken = broken_annotation(config, task)
        if not broken:
            raise
        raise UserError(f"the annotation file {broken} is not JSON: {str(error).splitlines()[0]}") from error


def _config_in(argv: list[str], task: str) -> Path:
    names = [arg for arg in argv if arg.endswith((".py", ".yaml", ".yml", ".json")) and "=" not in arg]
    if not names:
        raise UserError(
            f"name a config: tools/{task}.py CONFIG ..., for instance one of configs/mmdet or configs/mmseg"
        )
    path = Path(names[0])
    if not path.is_file():
        raise UserError(f"there is no config {path}; the project's are in configs/mmdet and configs/mmseg")
    return path


def _load(path: Path) -> Config:
    try:
        return Config.fromfile(path)
    except UserError:
        raise
    except Exception as error:  # a config is a program: anything may go wrong in it
        raise UserError(f"the config {path} cannot be read: {type(error).__name__}: {error}") from error


def _script(config: Config, task: str) -> ModuleType:
    """The module of the framework's own script, which its package carries."""
    scope = config.get("default_scope")
    if scope not in FRAMEWORKS:
        raise UserError(
            f"the config {config.filename} is for neither MMDetection nor MMSegmentation: its default_scope is"
            f" {scope!r}, not {' or '.join(map(repr, FRAMEWORKS))}"
        )
    package = importlib.util.find_spec(scope)
    path = Path(package.origin).parent / ".mim" / "tools" / f"{task}.py" if package and package.origin else None
    if path is None or not path.is_file():
        raise UserError(f"the config needs {FRAMEWORKS[scope]}, whose tools/{task}.py is not installed: run"
                        " tools/install.sh openmmlab")  # fmt: skip
    spec = importlib.util.spec_from_file_location(f"{scope}_{task}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check(config: Config, args: Namespace, task: str) -> None:
    check_data(config, task)
    checkpoint = getattr(args, "checkpoint", None) or getattr(args, "resume", None)
    local = isinstance(checkpoint, str) and checkpoint != "auto" and "://" not in checkpoint
    if local and not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}; training leaves them in its --work-dir")
    if getattr(args, "amp", False) and get_device() == "cpu":
        raise UserError("--amp needs a GPU; leave it out to train on the CPU")


def _join_processes(config: Config, args: Namespace) -> None:
    """Under ``torchrun`` no ``--launcher`` is needed; on CPUs MMEngine's own way to a group fails, as it needs CUDA."""
    under_torchrun = {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)
    if args.launcher == "none" and under_torchrun:
        args.launcher = "pytorch"
    if args.launcher != "pytorch" or get_device() != "cpu":
        return
    if not under_torchrun:
        raise UserError("--launcher pytorch needs torchrun: torchrun --nproc_per_node N tools/train.py ...")
    dist.init_process_group("gloo")
    args.cfg_options.setdefault("model_wrapper_cfg", {
        "type": "CPUDistributedDataParallel",
        "broadcast_buffers": False,
        "find_unused_parameters": config.get("find_unused_parameters", False),
    })  # fmt: skip
