"""Pretraining of a trunk as a classifier of annotated objects: crops of any COCO-format data set.

A stand-in for ImageNet where there is none: small enough for a CPU, and enough for a detector to start from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .errors import UserError
from .trunk import RegNetClassifier
from .weights.file import save
from .weights.meta import Meta

# Of the images as they are, in BGR order, as Detectron2 and pycls feed them.
PIXEL_MEAN, PIXEL_STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


@dataclass(frozen=True)
class Crops:
    """All objects of a data set: BGR pixels (N, 3, size, size) as bytes, with context around, and their classes."""

    pixels: Tensor
    labels: Tensor
    classes: list[str]

    def batch(self, indices: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normalized crops (n, 3, size, size): one random window of all, half of them mirrored, half recoloured."""
        margin = self.pixels.shape[-1] - size
        top, left = torch.randint(margin + 1, (2,), generator=generator).tolist()
        x = self.pixels[indices, :, top : top + size, left : left + size].float()
        mirrored, recoloured = torch.rand((2, len(indices)), generator=generator) < 0.5
        x[mirrored] = x[mirrored].flip(-1)
        x[recoloured] = x[recoloured][:, torch.randperm(3, generator=generator)]
        return _normalize(x), self.labels[indices]


def _normalize(x: Tensor) -> Tensor:
    return (x - torch.tensor(PIXEL_MEAN)[:, None, None]) / torch.tensor(PIXEL_STD)[:, None, None]


def read_crops(images: Path, annotations: Path, size: int, context: float = 1.25, smallest: int = 8) -> Crops:
    """Crop every object that is no crowd and at least ``smallest`` pixels wide and high.

    Args:
        context: side of the square crop over the longer side of the object's box.

    Raises:
        UserError: the annotation file or an image cannot be read, or it has no such object.
    """
    try:
        coco = json.loads(annotations.read_text())
        names = {image["id"]: image["file_name"] for image in coco["images"]}
        categories = sorted(coco["categories"], key=lambda category: category["id"])
        label = {category["id"]: i for i, category in enumerate(categories)}
        objects = [a for a in coco["annotations"] if not a.get("iscrowd") and min(a["bbox"][2:]) >= smallest]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{annotations} is not a COCO annotation file ({error}); give one with instances") from error
    if not objects:
        raise UserError(f"{annotations} has no object of at least {smallest} pixels to learn from; give another file")
    pixels = np.empty((len(objects), 3, size, size), np.uint8)
    objects.sort(key=lambda a: a["image_id"])
    opened: tuple[int | None, Image.Image | None] = (None, None)
    for crop, annotation in zip(pixels, objects, strict=True):
        if opened[0] != annotation["image_id"]:
            opened = annotation["image_id"], _open(images / names[annotation["image_id"]])
        crop[:] = _crop(opened[1], annotation["bbox"], size, context)
    labels = torch.tensor([label[a["category_id"]] for a in objects])
    return Crops(torch.from_numpy(pixels), labels, [category["name"] for category in categories])


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path).convert("RGB")
    except OSError as error:
        raise UserError(f"the image {path} cannot be read: {error}; restore it and start again") from error


def _crop(image: Image.Image, box: list[float], size: int, context: float) -> np.ndarray:
    x, y, width, height = box
    half = max(width, height) * context / 2
    window = (x + width / 2 - half, y + height / 2 - half, x + width / 2 + half, y + height / 2 + half)
    # Beyond the image's edge PIL fills with black.
    square = image.transform((size, size), Image.Transform.EXTENT, window, Image.Resampling.BILINEAR)
    return np.asarray(square)[:, :, ::-1].transpose(2, 0, 1)


def pretrain(
    arch: str,
    crops: Crops,
    held_out: Crops,
    path: Path,
    *,
    iterations: int = 600,
    batch_size: int = 64,
    size: int = 64,
    learning_rate: float = 4e-3,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> float:
    """Train a classifier with AdamW and a cosine schedule, and save it with its metadata to ``path``.

    Args:
        crops: to learn from, stored larger than ``size`` so that windows vary.
        held_out: to measure on.
        progress: called with (iterations done, iterations in all).

    Returns:
        The share of ``held_out`` that is classified rightly.

    Raises:
        UserError: the loss became NaN, or the file cannot be written.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = RegNetClassifier(arch, len(crops.classes)).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=0.05)
    warmup = max(1, iterations // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * i / iterations))
    )
    for i in range(iterations):
        chosen = torch.randint(len(crops.labels), (batch_size,), generator=generator)
        x, y = crops.batch(chosen, size, generator)
        loss = F.cross_entropy(network(x.contiguous(memory_format=torch.channels_last)), y, label_smoothing=0.1)
        if not loss.isfinite():
            raise UserError(f"pretraining diverged at iteration {i} (loss {loss.item()}); lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(i + 1, iterations)
    accuracy = _accuracy(network.eval(), held_out, size, batch_size)
    note = f"pretrained on {len(crops.labels)} crops of {len(crops.classes)} classes; held-out accuracy {accuracy:.3f}"
    meta = Meta(
        arch=network.arch.name, format="ours", channel_order="BGR", pixel_mean=PIXEL_MEAN, pixel_std=PIXEL_STD,
        notes=[note],
    )  # fmt: skip
    save(path, {k: v.contiguous() for k, v in network.state_dict().items()}, meta)
    return accuracy


@torch.no_grad()
def _accuracy(network: RegNetClassifier, crops: Crops, size: int, batch_size: int) -> float:
    margin = (crops.pixels.shape[-1] - size) // 2
    right = 0
    for pixels, labels in zip(crops.pixels.split(batch_size), crops.labels.split(batch_size), strict=True):
        x = _normalize(pixels[:, :, margin : margin + size, margin : margin + size].float())
        right += (network(x).argmax(1) == labels).sum().item()
    return right / len(crops.labels)
