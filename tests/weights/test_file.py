"""Reading any container without trusting it, and writing whole files or none."""

from __future__ import annotations

import copy
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import torch

from regnet_backbones import UserError
from regnet_backbones.weights import file
from regnet_backbones.weights.meta import Meta, imagenet_statistics

META = Meta(arch="RegNetX-200MF", notes=["a note"], **imagenet_statistics("BGR"))


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "stem.conv.weight": torch.randn(4, 3, 3, 3, generator=generator),
        "half": torch.randn(3, generator=generator).half(),
        "double": torch.randn(2, 2, generator=generator).double(),
        "counter": torch.tensor(7),
    }


class Harmless:
    """Stands for any class that a pickle could bring."""


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors", ".anything"])
def test_own_format_keeps_every_bit_and_the_metadata(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    file.save(path, tensors(), META)
    contents = file.read(path)
    found = contents.data.get("model", contents.data)
    assert contents.meta() == META
    assert {name: t.dtype for name, t in found.items()} == {name: t.dtype for name, t in tensors().items()}
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())
    assert os.listdir(tmp_path) == [path.name]


def test_recognized_by_content_not_by_suffix(tmp_path):
    path = tmp_path / "a.pkl"
    torch.save(tensors(), path)
    assert file.read(path).container == "torch"


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_files_with_numpy_beside_the_tensors(tmp_path, zipped):
    log = {"loss": np.float32(0.5), "history": np.arange(6, dtype=">i4").reshape(2, 3)[:, ::2]}
    torch.save({"model": tensors(), "log": log}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    data = file.read(tmp_path / "a.pth").data
    assert data["log"]["loss"] == 0.5
    assert data["log"]["history"].tolist() == [[0, 2], [3, 5]]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_every_protocol(tmp_path, protocol):
    arrays = {
        "c": np.arange(6, dtype="f4").reshape(2, 3), "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f8"), "bool": np.array([True, False]), "scalar": np.array(5),
        "empty": np.ones((0, 2)),
    }  # fmt: skip
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, protocol=protocol))
    data = file.read(path).data
    for name, array in arrays.items():
        assert data["model"][name].numpy().tolist() == array.tolist(), name
        assert data["model"][name].shape == array.shape


def test_a_training_checkpoint_of_mmengine(tmp_path):
    history = pytest.importorskip("mmengine.logging.history_buffer").HistoryBuffer([1.0, 2.0], [1, 1])
    torch.save({"state_dict": tensors(), "message_hub": {"loss": history}}, tmp_path / "a.pth")
    assert file.read(tmp_path / "a.pth").data["state_dict"].keys() == tensors().keys()


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
@pytest.mark.parametrize(
    ("thing", "name"),
    [(Harmless(), "Harmless"), (os.system, "system"), (np.array([None]), "O8|object"), (eval, "eval")],
    ids=["class", "function", "objects", "builtin"],
)
def test_more_than_data_is_refused_by_name(tmp_path, suffix, thing, name):
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"model": tensors(), "thing": thing}, path)
    else:
        path.write_bytes(pickle.dumps({"model": {}, "thing": thing}))
    with pytest.raises(UserError, match=f"({name}).*--unsafe"):
        file.read(path)


def test_the_switch_allows_it(tmp_path):
    torch.save({"model": tensors(), "thing": Harmless()}, tmp_path / "a.pth")
    assert isinstance(file.read(tmp_path / "a.pth", unsafe=True).data["thing"], Harmless)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"thing": Harmless()}))
    assert isinstance(file.read(tmp_path / "a.pkl", unsafe=True).data["thing"], Harmless)


class Runs:
    """Unpickling this would run code: write a file."""

    def __init__(self, path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_no_code_runs(tmp_path, suffix):
    trap, path = tmp_path / "trap", tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save({"a": Runs(trap)}, path)
    else:
        path.write_bytes(pickle.dumps({"a": Runs(trap)}))
    with pytest.raises(UserError):
        file.read(path)
    assert not trap.exists()
    file.read(path, unsafe=True)  # to see that the trap works
    assert trap.exists()


def _torch_bytes(tmp_path, data) -> bytes:
    torch.save(data, tmp_path / "whole.pth")
    return (tmp_path / "whole.pth").read_bytes()


def _zip_bomb(tmp_path) -> bytes:
    whole, packed = tmp_path / "whole.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(10_000_000)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    return packed.read_bytes()


def _repacked(tmp_path, compression: int, repeats: int) -> bytes:
    """A torch file of noise, which does not shrink, with its entries listed several times for the same bytes."""
    whole, packed = tmp_path / "whole.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.randint(0, 256, (1000,), dtype=torch.uint8)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", compression) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
        for number in range(repeats):
            for entry in [*target.filelist[: len(source.filelist)]]:
                target.filelist.append(copy.copy(entry))
                target.filelist[-1].filename += str(number)
    return packed.read_bytes()


def _flipped(content: bytes, mark: bytes) -> bytes:
    at = content.index(mark) + 2
    return content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :]


ONES = {"a": torch.ones(64, dtype=torch.bfloat16)}
BROKEN = {
    "empty": lambda tmp: b"",
    "text": lambda tmp: b"hello world, this is no checkpoint",
    "html": lambda tmp: b"<!DOCTYPE html><html><body>404</body></html>",
    "truncated torch": lambda tmp: _torch_bytes(tmp, tensors())[:-700],
    "half torch": lambda tmp: _torch_bytes(tmp, tensors())[: len(_torch_bytes(tmp, tensors())) // 2],
    "zip of something else": lambda tmp: b"PK\x05\x06" + b"\0" * 18,
    "flipped bit in a weight": lambda tmp: _flipped(_torch_bytes(tmp, ONES), b"\x80?" * 8),
    "zip bomb": _zip_bomb,
    "compressed": lambda tmp: _repacked(tmp, zipfile.ZIP_DEFLATED, 0),
    "overlapping entries": lambda tmp: _repacked(tmp, zipfile.ZIP_STORED, 9),
    "huge safetensors header": lambda tmp: struct.pack("<Q", 1 << 62) + b'{"a":1}',
    "long safetensors header": lambda tmp: struct.pack("<Q", 1 << 20) + b'{"a":1}',
    "no JSON": lambda tmp: struct.pack("<Q", 7) + b"{{{{{{{",
    "truncated pickle": lambda tmp: pickle.dumps({"model": {"a": np.ones(99)}})[:-50],
    "huge memo index": lambda tmp: b"\x80\x02}r\xff\xff\xff\xff.",
    "huge bytes": lambda tmp: b"\x80\x05\x96" + struct.pack("<Q", 1 << 60) + b"abc.",
    "huge text": lambda tmp: b"\x80\x04X\xff\xff\xff\x7fabc.",
    "array larger than its bytes": lambda tmp: pickle.dumps({"a": np.ones(4)}).replace(b"K\x04\x85", b"K\xff\x85"),
    "number": lambda tmp: pickle.dumps(3),
    "list": lambda tmp: _torch_bytes(tmp, [torch.ones(3)]),
    "nothing": lambda tmp: _torch_bytes(tmp, {}),
    "endless list": lambda tmp: b"\x80\x02]q\x00h\x00a.",
    "doubling lists": lambda tmp: b"\x80\x02" + b"]q\x00" + b"".join(
        b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60)
    ) + b".",
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_broken_files_give_one_sentence(tmp_path, kind, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(BROKEN[kind](tmp_path))
    start = time.monotonic()
    with pytest.raises(UserError, match=r"broken") as error:
        file.read(path)
    assert "\n" not in str(error.value)
    assert ("compressed archive" in str(error.value)) == (kind in ("zip bomb", "compressed", "overlapping entries"))
    assert time.monotonic() - start < 5


def test_memory_stays_small(tmp_path):
    """A small file that claims much gives an error within little memory."""
    resource = pytest.importorskip("resource")
    del resource
    claims = {
        "memo": b"\x80\x02}r\xff\xff\xff\xff.",
        "bytes": b"\x80\x05\x96" + struct.pack("<Q", 1 << 36) + b"abc.",
        "header": struct.pack("<Q", 90_000_000) + b'{"a":1}',
    }
    for name, content in claims.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "bomb").write_bytes(_zip_bomb(tmp_path))
    code = (
        "import sys, resource, regnet_backbones as rb\n"
        "from regnet_backbones.weights import file\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try: file.read(path)\n"
        "    except rb.UserError: continue\n"
        "    sys.exit(path)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    paths = [str(tmp_path / name) for name in (*claims, "bomb")]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 100_000  # KiB


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_the_file_may_be_written_into_after_reading(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    file.save(path, tensors(), META)
    found = file.read(path).data
    os.truncate(path, 10)
    assert torch.equal(found.get("model", found)["double"], tensors()["double"])


@pytest.mark.parametrize("path", ["missing.pth", "."])
def test_no_file(tmp_path, path):
    with pytest.raises(UserError, match="cannot be read"):
        file.read(tmp_path / path)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors"])
def test_a_failed_write_leaves_the_old_file(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a{suffix}"
    file.save(path, tensors(), META)
    before = path.read_bytes()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        file.save(path, {"other": torch.ones(5)}, META)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_full_disk_is_told_in_one_sentence(tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left"):
        file.save(tmp_path / "a.pth", tensors(), META)
    assert os.listdir(tmp_path) == []


def test_no_folder(tmp_path):
    with pytest.raises(UserError, match="no folder"):
        file.save(tmp_path / "missing" / "a.pth", tensors(), META)


def test_a_view_is_written_alone(tmp_path):
    """torch.save writes the whole memory behind a view."""
    large = torch.zeros(1_000_000)
    file.save(tmp_path / "a.pth", {"small": large[:10]}, META)
    assert (tmp_path / "a.pth").stat().st_size < 10_000


def test_bfloat16_has_no_numpy(tmp_path):
    with pytest.raises(UserError, match="bfloat16"):
        file.save(tmp_path / "a.pkl", {"a": torch.ones(3, dtype=torch.bfloat16)}, META)
    assert os.listdir(tmp_path) == []


def test_metadata_that_is_not_json(tmp_path):
    from safetensors.torch import save_file

    save_file(tensors(), tmp_path / "a.safetensors", metadata={file.META_KEY: "{"})
    with pytest.raises(UserError, match="not JSON"):
        file.read(tmp_path / "a.safetensors").meta()
