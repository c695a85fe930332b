"""Detectron2: the trunk as a backbone, its config node, checkpoints that must fit, and a trainer.

Importing this package registers ``build_regnet_backbone``, ``build_regnet_fpn_backbone`` and
``build_retinanet_regnet_fpn_backbone`` in Detectron2's ``BACKBONE_REGISTRY``, and the embedded data set in its
``DatasetCatalog``. YAML: ``add_regnet_config(cfg)``, then ``MODEL.REGNET`` (:mod:`.config` lists its keys).
LazyConfig: ``L(RegNetBackbone)(arch="regnety_4gf", ...)``.
"""

from .backbone import RegNetBackbone
from .checkpoint import RegNetCheckpointer
from .config import add_regnet_config
from .datasets import register_embedded

__all__ = ["RegNetBackbone", "RegNetCheckpointer", "add_regnet_config"]

register_embedded()
