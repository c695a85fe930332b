"""Whole detectors between Detectron2 and MMDetection: Faster R-CNN, Mask R-CNN and RetinaNet on any RegNet."""

from .detector import Detector, read_detector
from .frameworks import get_framework

__all__ = ["Detector", "get_framework", "read_detector"]
