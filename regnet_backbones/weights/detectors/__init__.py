"""Whole detectors between Detectron2 and MMDetection: Faster R-CNN, Mask R-CNN and RetinaNet on any RegNet.

What the two do differently, read off their sources (Detectron2's main of 2024, MMDetection 3), and what is done:

==========================  ====================================  ===================================================
                            Detectron2 / MMDetection              here
==========================  ====================================  ===================================================
anchors inside a cell       sizes first / ratios first            outputs of RPN and RetinaNet are permuted
ReLU before P7              always / relu_before_extra_convs      a setting, MODEL.FPN.RELU_BEFORE_P7 on our side
P6 comes from               the trunk / add_extra_convs           read off the shape, MODEL.FPN.P6_FROM_P5
RetinaNet's boxes are cut   after NMS / before                    before in both: META_ARCHITECTURE ClippedRetinaNet
deltas of boxes             divided by (10, 10, 5, 5) / times     the same: no change
                            (0.1, 0.1, 0.2, 0.2)
growth of a box             at most 1000/16 in both; shrinking    left: only boxes that shrink 60 times differ
                            without limit / at most as much
background                  the last class in both                the same
anchors' centres            OFFSET 0.0 / center_offset 0          the same
level of a region           floor(4 + log2(s/224 + 1e-8)) /       left: a region whose size is one of the three
                            floor(log2(s/56 + 1e-6))              limits up to 1e-6 may be read off another level
ROIAlign                    aligned, adaptive samples in both     the same
RPN's and R-CNN's NMS       per level, per class, in both         the same; Detectron2 orders proposals by logits and
                                                                  MMDetection by sigmoids, where float32 can tie
thresholds, top-k, sizes    equal in both frameworks' configs     the same: 0.05, 0.5, 0.7, 1000, 100, no least size
masks                       at least 0.5 in both                  the same
resizing                    PIL / OpenCV                          not in the weights: detections differ by it
==========================  ====================================  ===================================================
"""

from .detector import Detector, read_detector
from .frameworks import get_framework

__all__ = ["Detector", "get_framework", "read_detector"]
