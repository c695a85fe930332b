"""The data sets that a config names: whether they are there, and moving all of them by one ``data_root``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ...errors import UserError

LOADERS = {"train": ("train_dataloader", "val_dataloader"), "test": ("test_dataloader",)}
EVALUATORS = {"train": ("val_evaluator",), "test": ("test_evaluator",)}


def moved_data(config: Config, data_root: str | None) -> dict[str, Any]:
    """Overrides, as ``--cfg-options`` takes them, that move every path under the config's data_root to another.

    A config has copied its data_root into loaders and evaluators by the time ``--cfg-options`` are read.
    """
    old = config.get("data_root")
    if not (data_root and old):
        return {}
    names = [name for name in config if name.endswith(("_dataloader", "_evaluator"))]
    return {
        path: data_root.rstrip("/") + "/" + value[len(old) :].lstrip("/")
        for name in names
        for path, value in _strings(config[name], name)
        if value.startswith(old)
    }


def _strings(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every string below ``node`` with its dotted path."""
    if isinstance(node, str):
        yield path, node
    elif isinstance(node, (dict, list, tuple)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _strings(value, f"{path}.{key}")


def check_data(config: Config, task: str) -> None:
    """Raises UserError for the first folder or annotation file that is not there."""
    for loader in LOADERS[task]:
        for key, dataset in _datasets(config.get(loader) or {}, loader):
            root = Path(dataset.get("data_root") or "")
            if _is_remote(root):
                continue
            for path in _paths(dataset, root):
                if not path.exists():
                    _missing(root, path, key)
    for path in _annotations(config, task):
        if not path.exists():
            _missing(path.parent, path, "evaluator")


def broken_annotation(config: Config, task: str) -> Path | None:
    """The first annotation file that is not JSON."""
    for path in _annotations(config, task):
        try:
            json.loads(path.read_bytes())
        except ValueError:
            return path
    return None


def _missing(root: Path, path: Path, key: str) -> None:
    what = f"the folder {root.absolute()}" if not root.is_dir() else f"{path.absolute()}"
    where = f" (data_root of {key})" if key != "evaluator" else " (ann_file of the evaluator)"
    raise UserError(
        f"the data set is not there: looked for {what}{where}; set data_root to where it is, with --cfg-options"
        " data_root=FOLDER or in the config"
    )


def _datasets(node: Any, key: str) -> Iterator[tuple[str, dict]]:
    """Innermost data sets of a loader, through wrappers such as RepeatDataset and ConcatDataset."""
    inner = node.get("datasets") or node.get("dataset")
    if inner is None:
        if "data_prefix" in node or "ann_file" in node:
            yield key, node
        return
    for i, child in enumerate(inner if isinstance(inner, (list, tuple)) else [inner]):
        name = f"datasets.{i}" if isinstance(inner, (list, tuple)) else "dataset"
        yield from _datasets(child, f"{key}.{name}")


def _paths(dataset: dict, root: Path) -> Iterator[Path]:
    if str(root) != ".":
        yield root
    if dataset.get("ann_file"):
        yield root / dataset["ann_file"]
    for folder in (dataset.get("data_prefix") or {}).values():
        yield root / folder


def _annotations(config: Config, task: str) -> Iterator[Path]:
    """Annotation files, local and in JSON by their names, of data sets and evaluators."""
    for loader in LOADERS[task]:
        for _, dataset in _datasets(config.get(loader) or {}, loader):
            root = Path(dataset.get("data_root") or "")
            if str(dataset.get("ann_file", "")).endswith(".json") and not _is_remote(root):
                yield root / dataset["ann_file"]
    for name in EVALUATORS[task]:
        given = config.get(name) or []
        for evaluator in given if isinstance(given, (list, tuple)) else [given]:
            if evaluator.get("ann_file") and "://" not in evaluator["ann_file"]:
                yield Path(evaluator["ann_file"])


def _is_remote(root: Path) -> bool:
    return ":/" in str(root)
