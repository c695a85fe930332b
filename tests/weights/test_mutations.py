"""Seeded damage to small checkpoints of every container: each loads as what it is or is refused in one sentence."""

from __future__ import annotations

import copy
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from regnet_backbones import UserError, convert, get_arch
from regnet_backbones.weights import file, load_backbone
from regnet_backbones.weights.architecture import expected_shapes
from regnet_backbones.weights.meta import Meta

TINY = get_arch("depth=6,w_0=8,w_a=8,w_m=2,group_width=4,se_ratio=0.25")
SHAPES = expected_shapes(TINY)
SECONDS = 5  # for one file, where an intact one takes a hundredth of it
FILES = {
    "ours.pth": "ours", "ours.safetensors": "ours", "pycls.pyth": "pycls", "torchvision.pth": "torchvision",
    "timm.safetensors": "timm", "timm.pth": "timm", "detectron2.pkl": "detectron2", "detectron2.pth": "detectron2",
    "vissl.torch": "vissl", "transformers.safetensors": "transformers",
}  # fmt: skip
ROUNDS = 7  # of each kind of damage to each file


@pytest.fixture(scope="module")
def intact(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("intact")
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items() if shape}
    file.save(folder / "own.pth", state, Meta())
    for name, target in FILES.items():
        convert(folder / "own.pth", folder / name, to=target)
    torch.save(torch.load(folder / "torchvision.pth"), folder / "legacy.pth", _use_new_zipfile_serialization=False)
    return {name: folder / name for name in (*FILES, "legacy.pth")}


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 8, 64))):
        # Half of them where the structure is: the first and the last kilobytes.
        near = rng.randrange(min(3000, len(damaged)))
        at = rng.choice((near, len(damaged) - 1 - near, rng.randrange(len(damaged)), rng.randrange(len(damaged))))
        damaged[at] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return rng.choice((content[:start], content[: -rng.randrange(1, 99)], content[:start] + content[start + 64 :]))


def overwrite(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    size = rng.choice((8, 512))
    return content[:start] + rng.randbytes(size) + content[start + size :]


def check(path: Path, seconds: float = SECONDS) -> bool:
    """Whether the file loads; it must be a whole trunk then, and otherwise one sentence."""
    start, refusal = time.monotonic(), ""
    try:
        state, meta = load_backbone(path, TINY)
    except UserError as error:
        refusal = str(error)
    assert time.monotonic() - start < seconds
    if refusal:
        assert "\n" not in refusal
        assert path.name in refusal
        return False
    assert isinstance(meta, Meta)
    assert {n: tuple(t.shape) for n, t in state.items() if SHAPES[n]} == {n: s for n, s in SHAPES.items() if s}
    assert all(torch.isfinite(tensor).all() for tensor in state.values())
    return True


@pytest.mark.parametrize("name", [*FILES, "legacy.pth"])
def test_intact_files_load(intact, name):
    assert check(intact[name])


@pytest.mark.parametrize("damage", [flip_bits, cut, overwrite])
@pytest.mark.parametrize("name", [*FILES, "legacy.pth"])
def test_damaged_bytes(intact, tmp_path, name, damage: Callable):
    content = intact[name].read_bytes()
    for seed in range(ROUNDS):
        damaged = damage(content, random.Random(f"{name} {damage.__name__} {seed}"))
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(damaged)
        loaded = check(path)
        zipped = content.startswith(b"PK")
        assert not (loaded and damage is cut), "a part of a file passed for the whole"
        assert not (loaded and zipped and damaged != content) or same_weights(path, intact[name])


def same_weights(path: Path, original: Path) -> bool:
    """A torch archive has checksums: damage that goes unnoticed must have hit nothing that counts."""
    a, b = load_backbone(path)[0], load_backbone(original)[0]
    return all(torch.equal(a[name], b[name]) for name in b)


def renamed(state: dict[str, Tensor], rng: random.Random) -> None:
    key = rng.choice(list(state))
    at = rng.randrange(len(key))
    state[key[:at] + rng.choice("xX._9".replace(key[at], "")) + key[at + 1 :]] = state.pop(key)


def swapped(state: dict[str, Tensor], rng: random.Random) -> None:
    a, b = rng.sample(sorted(k for k in state if state[k].dim()), 2)
    state[a], state[b] = state[b], state[a]


def dropped(state: dict[str, Tensor], rng: random.Random) -> None:
    del state[rng.choice(sorted(k for k in state if state[k].dim()))]


def reshaped(state: dict[str, Tensor], rng: random.Random) -> None:
    key = rng.choice(sorted(k for k in state if state[k].dim()))
    state[key] = rng.choice((state[key].flatten(), state[key][:-1].clone(), state[key][None], torch.zeros(0)))
    if state[key].dim() == 1 and state[key].numel():
        state[key] = state[key][:-1].clone()


def retyped(state: dict[str, Tensor], rng: random.Random) -> None:
    key = rng.choice(sorted(k for k in state if state[k].dim()))
    state[key] = state[key].to(rng.choice((torch.int64, torch.uint8, torch.complex64, torch.bool)))


def poisoned(state: dict[str, Tensor], rng: random.Random) -> None:
    key = rng.choice(sorted(k for k in state if state[k].dim()))
    state[key].view(-1)[rng.randrange(state[key].numel())] = rng.choice((float("nan"), float("inf"), -float("inf")))


@pytest.mark.parametrize("damage", [renamed, dropped, reshaped, retyped, poisoned])
@pytest.mark.parametrize("name", ["torchvision.pth", "timm.pth", "legacy.pth"])
def test_damaged_state_dicts_are_refused(intact, tmp_path, name, damage: Callable):
    original = torch.load(intact[name])
    for seed in range(ROUNDS):
        state = copy.deepcopy(dict(original))
        damage(state, random.Random(f"{name} {damage.__name__} {seed}"))
        torch.save(state, tmp_path / f"{seed}-{name}")
        loaded = check(tmp_path / f"{seed}-{name}")
        lost = [key for key in original if key not in state]
        assert not loaded or (lost and lost[0].endswith("num_batches_tracked")), (damage, seed)


def test_swapped_tensors_of_other_shapes_are_refused(intact, tmp_path):
    original = torch.load(intact["timm.pth"])
    for seed in range(ROUNDS):
        state = dict(original)
        swapped(state, random.Random(seed))
        torch.save(state, tmp_path / "a.pth")
        same = all(state[key].shape == original[key].shape for key in state)
        assert check(tmp_path / "a.pth") == same


@pytest.mark.parametrize("seed", range(20))
def test_damaged_safetensors_headers(intact, tmp_path, seed):
    content = intact["timm.safetensors"].read_bytes()
    rng = random.Random(seed)
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    entry = header[rng.choice(sorted(k for k in header if k != "__metadata__"))]
    rng.choice((
        lambda: entry.update(dtype=rng.choice(("F64", "I32", "X9", "BF16", "F8_E5M2"))),
        lambda: entry.update(shape=[rng.choice((0, -1, 1 << 40, 3))] + entry["shape"]),
        lambda: entry.update(data_offsets=[rng.randrange(1 << 50), rng.randrange(1 << 50)]),
        lambda: entry.pop("shape", None),
        lambda: header.update(__metadata__={file.META_KEY: rng.choice(("{", "[]", '{"channel_order": "X"}', "3"))}),
    ))()  # fmt: skip
    text = json.dumps(header).encode()
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + size :])
    assert not check(path)
