"""What turns images into features, by the name of a backbone: hand-made, or a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from pipeline.errors import ParamsError
from pipeline.models import backbones, handmade
from pipeline.models.backbones import Extractor
from pipeline.params import HANDMADE_BACKBONES, check_options


def is_network(name: str) -> bool:
    """Whether a backbone needs torch and a device."""
    return name not in HANDMADE_BACKBONES


def extractor(
    name: str,
    weights: str,
    image_size: int,
    *,
    options: Mapping[str, Any],
    where: str,
    channels: int,
    device: Any = "cpu",
    state: Mapping[str, np.ndarray] | None = None,
) -> Extractor:
    """The extractor of a backbone.

    Args:
        name: `pixels`, one of `handmade.BACKBONES`, or a network as `backbones` has it.
        weights: of a network; else `none`.
        image_size: images are stretched to this height and width.
        options: of a hand-made backbone.
        where: the place in params.yaml, for messages, such as `features.icons_hog`.
        channels: of the dataset's images.
        device: of a network.
        state: what the backbone has learnt from the train split, where it has learnt something before.

    Raises:
        ParamsError: unknown name, weights or options.
    """
    if name in handmade.BACKBONES:
        if weights != "none":
            raise ParamsError(f"{where}.weights: {name} has none ({weights!r}); fix: weights: none")
        check_options(handmade.BACKBONES[name], options, f"{where}.options")
        made = handmade.BACKBONES[name](image_size, channels, **options)
        if state:
            made.state = dict(state)
        return made
    if options:
        raise ParamsError(f"{where}.options: {name} has none ({', '.join(options)}); fix: options: {{}}")
    return backbones.extractor(name, weights, image_size, channels=channels, device=device)


def learnt(made: Extractor, images: Iterable[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """What an extractor has learnt from the images [H, W, C] of the train split; empty where it does not learn."""
    if isinstance(made, handmade.VisualWords):
        made.learn(images, seed)
        return made.state
    return {}
