"""Where RetinaNet differs between Detectron2 and MMDetection beyond names: two switches on Detectron2's side."""

from __future__ import annotations

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.backbone.fpn import LastLevelP6P7
from detectron2.modeling.meta_arch.retinanet import RetinaNet
from detectron2.structures import Instances
from torch import Tensor
from torch.nn.functional import relu


class TopLevels(LastLevelP6P7):
    """P6 and P7 by two strided 3x3 convolutions: Detectron2's, with its ReLU between them as an option.

    Args:
        in_channels: of ``in_feature``.
        out_channels: of both levels.
        in_feature: the trunk's last feature, or the FPN's last level.
        relu_before_p7: as Detectron2 has it; False as MMDetection's configs do.
    """

    def __init__(self, in_channels: int, out_channels: int, in_feature: str, *, relu_before_p7: bool = True) -> None:
        super().__init__(in_channels, out_channels, in_feature)
        self.relu_before_p7 = relu_before_p7

    def forward(self, x: Tensor) -> list[Tensor]:
        p6 = self.p6(x)
        return [p6, self.p7(relu(p6) if self.relu_before_p7 else p6)]


@META_ARCH_REGISTRY.register()
class ClippedRetinaNet(RetinaNet):
    """Detectron2's RetinaNet with boxes cut at the image before NMS, as MMDetection and both R-CNNs do.

    Detectron2's own cuts them last, so that two boxes which differ only outside of the image both stay.
    """

    def _decode_multi_level_predictions(self, *args: object) -> Instances:
        found = super()._decode_multi_level_predictions(*args)
        found.pred_boxes.clip(found.image_size)
        return found[found.pred_boxes.nonempty()]
