"""RegNets for everything that is built on MMEngine: MMDetection, MMSegmentation and the other OpenMMLab packages.

``custom_imports = dict(imports=["regnet_backbones.adapters.openmmlab"], allow_failed_imports=False)`` in a config
registers :class:`RegNetBackbone`, ``DeriveChannels`` and a data-parallel wrapper for CPUs in MMEngine's root
registries, to which every package's own registry falls back, and gives every run the :class:`PixelsHook`. The
packages themselves are not imported here.

Run on the maintained forks (onedl-mmengine 0.10.12, onedl-mmdetection 3.5.1, onedl-mmsegmentation 1.4.2); upstream
(mmengine 0.10, mmdet 3.3, mmsegmentation 1.2) has the same interfaces and is untested.
"""

from .backbone import RegNetBackbone
from .channels import derive_channels
from .parallel import CPUDistributedDataParallel
from .pixels import PixelsHook, install

__all__ = ["CPUDistributedDataParallel", "PixelsHook", "RegNetBackbone", "derive_channels"]

install()
