"""FCOS (Tian et al. 2019): a single-stage, anchor-free detector on a feature pyramid, from torchvision.

Departs from the paper in size: a light backbone, a narrower and shallower head, levels at strides 8 to 64
with limits fit for images of about 200 pixels: 32, 64 and 128 pixels from a location to its farthest side.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from pipeline.errors import ParamsError
from pipeline.models import backbones
from pipeline.structures import DatasetInfo

STRIDES = (8, 16, 32, 64)


class Pyramid(nn.Module):
    """A timm backbone's maps at strides 8, 16 and 32 and one more by pooling, all of `out_channels`."""

    def __init__(self, name: str, weights: str, out_channels: int) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

        self.backbone = cast(Any, backbones.create(name, weights, features_only=True, out_indices=(2, 3, 4)))
        self.pyramid = FeaturePyramidNetwork(
            self.backbone.feature_info.channels(), out_channels, extra_blocks=LastLevelMaxPool()
        )
        self.out_channels = out_channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[B, 3, H, W] -> maps by name, finest first."""
        return self.pyramid({str(level): x for level, x in enumerate(self.backbone(images))})


def build(
    info: DatasetInfo,
    *,
    backbone: str = "tf_efficientnet_lite0",
    weights: str = "installed",
    channels: int = 128,
    convs: int = 4,
    frozen_stride: int = 0,
) -> nn.Module:
    """A detector with torchvision's interface, whose answers are not yet suppressed.

    Args:
        info: gives K and the size of batches.
        backbone: a timm network.
        weights: see models/backbones.py.
        channels: width of pyramid and head; a multiple of 32.
        convs: 3x3 convolutions in each branch of the head.
        frozen_stride: the backbone's weights up to this stride stay as they are.

    Raises:
        ParamsError: a width that the head's 32 groups do not divide, or images on which they would have one value.
    """
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.fcos import FCOS, FCOSHead

    if channels < 32 or channels % 32:
        raise ParamsError(f"model_params.channels: should be a multiple of 32 ({channels}); fix: such as 64")
    if channels == 32 and info.image_size is not None and max(info.image_size) <= STRIDES[-1]:
        raise ParamsError(  # the coarsest map has one value in each of the head's groups
            f"model_params.channels: 32 is too few for images of {max(info.image_size)} pixels; "
            "fix: 64 channels, or a larger training.image_size"
        )
    pyramid = Pyramid(backbone, weights, channels)
    if weights != "none":
        pyramid.backbone = backbones.freeze(pyramid.backbone, frozen_stride)
    mean, std = backbones.normalisation(backbone)
    assert info.image_size is not None
    network = FCOS(
        pyramid,
        num_classes=len(info.classes),
        min_size=min(info.image_size),
        max_size=max(info.image_size),
        image_mean=list(mean),
        image_std=list(std),
        anchor_generator=AnchorGenerator(tuple((stride // 2,) for stride in STRIDES), ((1.0,),) * len(STRIDES)),
        head=FCOSHead(channels, 1, len(info.classes), num_convs=convs),
        center_sampling_radius=3.0,  # in halves of a stride, so 1.5 strides as in the paper
        score_thresh=0.01,
        nms_thresh=1.0,  # nothing is suppressed here: `evaluate` does it
        detections_per_img=300,
        topk_candidates=300,
    )
    for module in (network.backbone, network.head):
        module.register_forward_hook(_in_floats)
    return network


def _in_floats(_module: nn.Module, _inputs: Any, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What follows under autocast is of the type of these: in bfloat16 boxes would lie on whole pixels from 128 on."""
    return {name: values.float() for name, values in outputs.items()}
