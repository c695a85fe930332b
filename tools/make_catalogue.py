#!/usr/bin/env python
"""Write the tables of published weights that an installed package states, one per publisher.

    python tools/make_catalogue.py            # rewrites regnet_backbones/weights/catalogue/{mmdet,...}.json
    python tools/make_catalogue.py timm       # only that one

The tables of pycls, detectron2, vissl and transformers are kept by hand: no package states what is in them.
"""

from __future__ import annotations

import csv
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regnet_backbones.arch import get_arch
from regnet_backbones.weights.catalogue import arch_key
from regnet_backbones.weights.meta import imagenet_statistics

HERE = Path(__file__).resolve().parent
TABLES = HERE.parent / "regnet_backbones" / "weights" / "catalogue"
# results/results-imagenet.csv of huggingface/pytorch-image-models at 0173a139, its RegNet rows.
TIMM_RESULTS = HERE / "timm_in1k_results.csv"
DEFORMABLE = "has deformable convolutions in its backbone, which this project's RegNet does not have"
RGB_FROM_BGR = (
    "fine-tuned, and to be run, with RGB images, although its backbone started from BGR weights:"
    " the only MMDetection RegNets that are RGB"
)

Row = dict[str, Any]


def torchvision_table() -> Row:
    from torchvision.models import get_model_weights, list_models

    rows = []
    for model in sorted(name for name in list_models() if name.startswith("regnet_")):
        for weights in get_model_weights(model):
            rows.append(_torchvision_row(model, weights))
    source = "torchvision/models/regnet.py"
    common = {"format": "torchvision", "task": "classifier", "source": source, **imagenet_statistics("RGB")}
    return {"about": f"torchvision {version('torchvision')}", "common": common, "rows": rows}


def _torchvision_row(model: str, weights: Any) -> Row:
    """``regnet_y_8gf`` has torchvision's own widths; at the sizes that pycls shares, ``_tv`` makes no difference."""
    tagged = get_arch(f"{model}_tv").name
    plain = get_arch(model)
    arch = plain.name if plain.same_network(get_arch(tagged)) else tagged
    tag = weights.name.removeprefix("IMAGENET1K_").lower() + "_in1k"
    presets = weights.transforms()
    stated = imagenet_statistics("RGB")
    for preset, key in ((presets.mean, "pixel_mean"), (presets.std, "pixel_std")):
        assert [round(value * 255, 6) for value in preset] == [round(v, 6) for v in stated[key]], (model, preset)
    swag = "SWAG" in weights.name
    return _filled(
        name=f"{arch_key(arch)}.torchvision_{tag}",
        arch=arch,
        url=weights.url,
        data="SWAG, then ImageNet-1k" if swag else "ImageNet-1k",
        top1=weights.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        top1_size=presets.crop_size[0],
        checksum=_sha256_prefix(weights.url),
        size_mib=weights.meta["_file_size"],
        # torchvision links to this licence; its text and SWAG's README call it so.
        licence=f"CC-BY-NC-4.0 ({weights.meta['license']})" if swag else "",
    )


def timm_table() -> Row:
    import timm
    from timm.models import is_model_in_modules

    with TIMM_RESULTS.open() as file:
        results = {row["model"]: row for row in csv.DictReader(file)}
    rows = []
    for name in timm.list_models("regnet*", pretrained=True):
        # regnetv (norms before the convolutions) and byobnet's regnetz are other networks.
        if is_model_in_modules(name.split(".")[0], ["regnet"]) and not name.startswith("regnetv"):
            rows.append(_timm_row(name, timm.get_pretrained_cfg(name), results.get(name)))
    source = "timm/models/regnet.py; accuracy: results/results-imagenet.csv"
    common = {"format": "timm", "source": source, **imagenet_statistics("RGB")}
    return {"about": f"timm {version('timm')}", "common": common, "rows": rows}


def _timm_row(name: str, stated: Any, result: dict[str, str] | None) -> Row:
    stated_mean = [round(value * 255, 6) for value in stated.mean]
    assert stated_mean == [round(v, 6) for v in imagenet_statistics("RGB")["pixel_mean"]], name
    model, tag = name.split(".")
    wide_head = model.endswith("_h")
    arch = get_arch(model.removesuffix("_h")).name
    notes = ["the trunk of regnetz_040; only the classifier is wider"] if wide_head else []
    if tag == "pycls_in1k":
        notes.append("pycls' weights with the stem's input channels reversed from BGR to RGB")
    return _filled(
        name=f"{arch_key(arch)}.timm_{'h_' if wide_head else ''}{tag}",
        arch=arch,
        task="classifier" if stated.num_classes else "features",
        url=f"https://huggingface.co/{stated.hf_hub_id}/resolve/main/model.safetensors",
        data=_timm_data(tag),
        top1=float(result["top1"]) if result else None,
        top1_size=int(result["img_size"]) if result else None,
        licence=stated.license,
        alias=f"hf_hub:{stated.hf_hub_id}",
        notes=notes,
    )


def _timm_data(tag: str) -> str:
    pretrained = {"seer": "SEER", "swag": "SWAG", "sw": "ImageNet-12k", "lion": "ImageNet-12k"}.get(tag.split("_")[0])
    if pretrained is None:
        return "ImageNet-1k"
    return f"{pretrained}, then ImageNet-1k" if tag.endswith("in1k") else pretrained


def openmmlab_table() -> Row:
    import mmengine

    hub = json.loads((Path(mmengine.__file__).parent / "hub" / "openmmlab.json").read_text())
    rows = []
    for key, url in hub.items():
        if key.startswith("regnetx_"):
            arch = get_arch(key).name
            name = f"{arch_key(arch)}.openmmlab_in1k"
            checksum = _sha256_prefix(url)
            rows.append(_filled(name=name, arch=arch, url=url, checksum=checksum, alias=f"open-mmlab://{key}"))
    common = {
        "format": "mmdet",
        "task": "classifier",
        "data": "ImageNet-1k",
        "source": "mmengine/hub/openmmlab.json; channel order: mmdetection docs/en/model_zoo.md",
        **imagenet_statistics("BGR"),
        "notes": ["pycls' weights under MMDetection's names"],
    }
    return {"about": f"onedl-mmengine {version('onedl-mmengine')}", "common": common, "rows": rows}


def mmpretrain_table() -> Row:
    rows = []
    for model, config in _metafile("mmpretrain"):
        arch = get_arch(config.model.backbone.arch).name
        rows.append(
            _filled(
                name=f"{arch_key(arch)}.mmpretrain_{model['Name'].split('_', 1)[1]}",
                arch=arch,
                url=model["Weights"],
                top1=model["Results"][0]["Metrics"]["Top 1 Accuracy"],
                config=model["Name"],
                checksum=_sha256_prefix(model["Weights"]),
                **_preprocessing(config.data_preprocessor, "to_rgb"),
            )
        )
    common = {
        "format": "mmpretrain",
        "task": "classifier",
        "data": "ImageNet-1k",
        "top1_size": 224,
        "source": "mmpretrain configs/regnet/metafile.yml",
    }
    return _factored(f"onedl-mmpretrain {version('onedl-mmpretrain')}", common, rows)


def mmdet_table() -> Row:
    rows = {}
    for model, config in _metafile("mmdet"):
        arch = get_arch(config.model.backbone.arch).name
        metrics = {key: value for result in model["Results"] for key, value in result["Metrics"].items()}
        preprocessing = _preprocessing(config.model.data_preprocessor, "bgr_to_rgb")
        notes = [RGB_FROM_BGR] if preprocessing["channel_order"] == "RGB" else []
        notes += [DEFORMABLE] if "dcn" in config.model.backbone else []
        # The metafile has one of them twice.
        rows[model["Name"]] = _filled(
            name=f"{arch_key(arch)}.mmdet_{re.sub(r'_regnetx-[0-9.]+[MG]F', '', model['Name'])}",
            arch=arch,
            url=model["Weights"],
            box_ap=metrics["box AP"],
            mask_ap=metrics.get("mask AP"),
            config=model["Name"],
            checksum=_sha256_prefix(model["Weights"]),
            **preprocessing,
            notes=notes,
        )
    common = {
        "format": "mmdet",
        "task": "detector",
        "data": "COCO",
        "source": "mmdet configs/regnet/metafile.yml",
    }
    return _factored(f"onedl-mmdetection {version('onedl-mmdetection')}", common, list(rows.values()))


def _metafile(package: str) -> Iterator[tuple[Row, Any]]:
    """Models of the package's RegNet metafile, each with its effective config."""
    import yaml
    from mmengine.config import Config

    # The package itself is not imported: it asks for an exact MMCV.
    root = Path(find_spec(package).submodule_search_locations[0]) / ".mim"
    for model in yaml.safe_load((root / "configs" / "regnet" / "metafile.yml").read_text())["Models"]:
        yield model, Config.fromfile(root / model["Config"])


def _preprocessing(preprocessor: Any, to_rgb: str) -> Row:
    return {
        "channel_order": "RGB" if preprocessor[to_rgb] else "BGR",
        "pixel_mean": list(preprocessor["mean"]),
        "pixel_std": list(preprocessor["std"]),
    }


def _factored(about: str, common: Row, rows: list[Row]) -> Row:
    """The table with BGR statistics stated once; a row keeps what differs."""
    common |= imagenet_statistics("BGR")
    shared = {key: list(value) if isinstance(value, tuple) else value for key, value in common.items()}
    rows = [{key: value for key, value in row.items() if value != shared.get(key)} for row in rows]
    return {"about": about, "common": common, "rows": rows}


def _sha256_prefix(url: str) -> str:
    """What torch.hub and OpenMMLab put before the suffix of a file they publish."""
    match = re.search(r"-([0-9a-f]{8})\.pth$", url)
    return f"sha256:{match[1]}" if match else ""


def _filled(**row: Any) -> Row:
    return {key: value for key, value in row.items() if value not in (None, "", [])}


MAKERS: dict[str, Callable[[], Row]] = {
    "torchvision": torchvision_table,
    "timm": timm_table,
    "openmmlab": openmmlab_table,
    "mmpretrain": mmpretrain_table,
    "mmdet": mmdet_table,
}


def write(path: Path, table: Row) -> None:
    """As JSON with one row per line, so that a difference between releases reads as lines."""

    def line(row: Row) -> str:
        return json.dumps(row, ensure_ascii=False)

    rows = ",\n  ".join(line(row) for row in table["rows"])
    text = f'{{"about": {line(table["about"])},\n "common": {line(table["common"])},\n "rows": [\n  {rows}\n ]}}\n'
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def main(names: list[str]) -> None:
    unknown = set(names) - set(MAKERS)
    if unknown:
        sys.exit(f"error: no package states the table '{unknown.pop()}'; choose from {', '.join(MAKERS)}")
    for name in names or MAKERS:
        table = MAKERS[name]()
        write(TABLES / f"{name}.json", table)
        print(f"{name}.json: {len(table['rows'])} rows from {table['about']}")


if __name__ == "__main__":
    main(sys.argv[1:])
