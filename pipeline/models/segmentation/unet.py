"""U-Net (Ronneberger et al. 2015) over a pretrained encoder, from segmentation-models-pytorch."""

from torch import nn

from pipeline.errors import PipelineError
from pipeline.models import backbones
from pipeline.models.layers import Normalise
from pipeline.structures import DatasetInfo


def build(
    info: DatasetInfo,
    *,
    encoder: str = "tf_efficientnet_lite0",
    weights: str = "installed",
    decoder_channels: list[int] = [256, 128, 64, 32, 16],  # noqa: B006
    frozen_stride: int = 0,
) -> nn.Module:
    """[B, C, H, W], H and W multiples of 32, -> logits [B, K, H, W] over the semantic classes.

    The encoder's batch norms keep their pretrained statistics: batches are small.

    Args:
        info: gives K and C.
        encoder: a timm backbone.
        weights: see models/backbones.py.
        decoder_channels: width of the five steps up.
        frozen_stride: the encoder's weights up to this stride stay as they are.

    Raises:
        PipelineError: the images' sides are not multiples of 32.
    """
    import segmentation_models_pytorch as smp

    if info.image_size is not None and any(side % 32 for side in info.image_size):
        raise PipelineError(
            f"dataset {info.name}: a U-Net needs sides that are multiples of 32 ({info.image_size}); "
            "fix: set training.image_size"
        )
    backbones.check_name(encoder)
    network = smp.Unet(
        f"tu-{encoder}",
        encoder_weights=True if weights == "pretrained" else None,  # what timm downloads
        in_channels=3,
        classes=len(info.semantic_classes),
        decoder_channels=tuple(decoder_channels),
    )
    state = backbones.state_of(encoder, weights)
    if state is not None:
        backbones.load_shared(network.encoder.model, state, where=f"weights {weights!r} of {encoder}")
    if weights != "none":
        network.encoder.model = backbones.freeze(network.encoder.model, frozen_stride)
    return nn.Sequential(Normalise(*backbones.normalisation(encoder)), network)
