#!/usr/bin/env python
"""Peak memory and time of converting a checkpoint, beside plain ``torch.load`` and ``torch.save`` of it.

    python tools/bench_convert.py                       # RegNetY-32GF, 145 million parameters, torchvision to ours
    python tools/bench_convert.py --arch regnety_4gf --to timm --suffix .safetensors

Each measurement runs in a process of its own, the median of several; the file is read once before, so that the
disk is warm. Memory is the process' peak resident set with everything in it, the interpreter and torch too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_MEASURE = """
import json, resource, sys, time
import torch
import regnet_backbones.weights.conversion as conversion
torch.set_num_threads(1)
what, src, dst, to = sys.argv[1:]
start = time.perf_counter()
if what == "convert":
    conversion.convert(src, dst, to=to, overwrite=True)
elif what == "torch":
    torch.save(torch.load(src, map_location="cpu", weights_only=True), dst)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
print(json.dumps({"seconds": seconds, "bytes": peak}))
"""


def measure(what: str, src: Path, dst: Path, to: str, repeats: int) -> dict[str, float]:
    """Median seconds and peak bytes of ``what`` (``convert``, ``torch`` or ``nothing``)."""
    command = [sys.executable, "-c", _MEASURE, what, str(src), str(dst), to]
    runs = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(repeats)]
    return {key: statistics.median(run[key] for run in runs) for key in ("seconds", "bytes")}


def make_checkpoint(arch: str, path: Path) -> None:
    """A torchvision-format checkpoint of ``arch`` with random weights."""
    code = (
        "import sys, regnet_backbones as rb\n"
        "from regnet_backbones.weights import file, meta\n"
        "import tempfile, pathlib\n"
        "model = rb.RegNetClassifier(sys.argv[1])\n"
        "own = sys.argv[2] + '.own'\n"
        "file.save(own, model.state_dict(), meta.Meta(arch=model.arch.name, **meta.imagenet_statistics('RGB')))\n"
        "rb.convert(own, sys.argv[2], to='torchvision')\n"
        "import torch\n"
        "torch.save(dict(torch.load(sys.argv[2])), sys.argv[2])  # as torchvision does: without our metadata\n"
        "pathlib.Path(own).unlink()\n"
    )
    subprocess.run([sys.executable, "-c", code, arch, str(path)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="regnety_32gf")
    parser.add_argument("--to", default="ours", help="target format")
    parser.add_argument("--suffix", default=".pth", help="of the target: .pth, .safetensors or .pkl")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        src, dst = Path(folder, "source.pth"), Path(folder, f"target{args.suffix}")
        make_checkpoint(args.arch, src)
        size = len(src.read_bytes())
        rows = {w: measure(w, src, dst, args.to, args.repeats) for w in ("nothing", "torch", "convert")}
    print(f"{args.arch}, torchvision to {args.to}{args.suffix}, a file of {size / 1e6:.0f} MB")
    print(f"{'':28}{'seconds':>9}{'peak MB':>9}{'peak / file':>13}")
    names = {"nothing": "imports only", "torch": "torch.load + torch.save", "convert": "convert"}
    for what, name in names.items():
        seconds, peak = rows[what]["seconds"], rows[what]["bytes"]
        print(f"{name:28}{seconds:9.2f}{peak / 1e6:9.0f}{peak / size:13.2f}")
    print(f"time over torch.load + torch.save: {rows['convert']['seconds'] / rows['torch']['seconds']:.2f}")


if __name__ == "__main__":
    main()
