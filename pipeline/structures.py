"""The nouns that stages, models and metrics share.

Shape letters of the whole project: B images, C channels, H W height and width, K classes,
N predictions, M ground truths, P keypoints, D features. Boxes are xyxy in absolute pixels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""The value of a label map where nothing is scored."""

SPLITS = ("train", "val", "test")


@dataclass
class DatasetInfo:
    """What is known of a dataset as a whole; `info.json` of its store.

    Attributes:
        name: the dataset's name in params.yaml.
        tasks: kinds of truth it carries: classification, detection, instance, semantic, panoptic, keypoints, captions,
            regression.
        classes: names of the K classes of `label` and of objects.
        semantic_classes: names of the values of the semantic map; empty without one.
        thing_of_semantic: for each semantic value the class index it shows, or -1 for stuff.
        keypoints: names of the P keypoints.
        skeleton: pairs of keypoint indices that are joined in a picture.
        feature_names: names of the D numbers of the store's `features` column, of a table's rows; else empty.
        colours: one #rrggbb for each semantic class, or for each class without semantic classes.
        licence, attribution, source, checksum: where the data is from and on what terms.
        counts: images per split.
        mean, std: per channel over the train split, of images scaled to 0..1.
        image_size: height and width if all images share one, else None.
        channels: 1 (grey) or 3 (RGB).
    """

    name: str
    tasks: list[str]
    classes: list[str]
    channels: int
    licence: str
    attribution: str
    source: str
    checksum: str = ""
    semantic_classes: list[str] = field(default_factory=list)
    thing_of_semantic: list[int] = field(default_factory=list)
    keypoints: list[str] = field(default_factory=list)
    skeleton: list[list[int]] = field(default_factory=list)
    feature_names: list[str] = field(default_factory=list)
    colours: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    image_size: list[int] | None = None

    __pydantic_config__: ClassVar[Any] = {"strict": True, "extra": "forbid"}

    def to_json(self) -> dict[str, Any]:
        """The content of info.json."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> DatasetInfo:
        """What `to_json` made.

        Raises:
            ValueError: it is something else; says what, in one line.
        """
        import json

        from pydantic import TypeAdapter, ValidationError

        try:  # as JSON, where a mapping may stand for this class and nothing else is converted
            info: DatasetInfo = TypeAdapter(cls).validate_json(json.dumps(content))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if info.channels not in (1, 3):
            raise ValueError(f"channels: {info.channels}, not 1 or 3")
        return info


@dataclass
class Objects:
    """The M annotated objects of one image.

    Attributes:
        boxes: [M, 4] float32, xyxy in pixels.
        labels: [M] int64, class indices.
        area: [M] float32, of the mask where there is one, else of the box, in pixels.
        iscrowd: [M] bool.
        masks: [M, H, W] bool, or None.
        keypoints: [M, P, 3] float32: x, y, visibility (0 absent, 1 hidden, 2 seen), or None.
    """

    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    masks: np.ndarray | None = None
    keypoints: np.ndarray | None = None

    def __post_init__(self) -> None:
        num = len(self.boxes)
        if self.boxes.shape != (num, 4):
            raise ValueError(f"boxes must be [M, 4], got {self.boxes.shape}")
        for name in ("labels", "area", "iscrowd", "masks", "keypoints"):
            value = getattr(self, name)
            if value is not None and len(value) != num:
                raise ValueError(f"{name} has {len(value)} entries for {num} boxes")

    def __len__(self) -> int:
        return len(self.boxes)


@dataclass
class Segments:
    """The panoptic map of one image.

    Attributes:
        ids: [H, W] int32, the segment of each pixel; 0 is void.
        segment_ids: [S] int64, the ids that occur.
        labels: [S] int64, the semantic class of each segment.
    """

    ids: np.ndarray
    segment_ids: np.ndarray
    labels: np.ndarray


@dataclass
class Sample:
    """One image with its truth; absent kinds are None.

    Attributes:
        image_id: unique in the dataset.
        file_name: the name of the image in its source.
        image: [H, W, C] uint8, C 1 or 3 (RGB).
        label: class index.
        objects: boxes, masks and keypoints.
        semantic: [H, W] uint8, IGNORE where not scored.
        segments: the panoptic map.
        captions: sentences about the image.
        target: a number to be regressed.
        group: what must stay within one split.
    """

    image_id: str
    file_name: str
    image: np.ndarray
    label: int | None = None
    objects: Objects | None = None
    semantic: np.ndarray | None = None
    segments: Segments | None = None
    captions: list[str] | None = None
    target: float | None = None
    group: str | None = None


@dataclass
class Batch:
    """B samples as tensors of one size, ready for a model.

    Attributes:
        images: [B, C, H, W] float32 in 0..1, or uint8 until `to` moves them.
        image_ids: B ids.
        sizes: B pairs (height, width) of the images as stored.
        labels: [B] int64, or None.
        label_weights: [B, K] float32, the share of each class after mixup, or None.
        boxes: B tensors [M, 4] float32 xyxy in pixels of `images`, or None.
        box_labels: B tensors [M] int64, or None.
        semantic: [B, H, W] int64, or None.
    """

    images: Tensor
    image_ids: list[str]
    sizes: list[tuple[int, int]]
    labels: Tensor | None = None
    label_weights: Tensor | None = None
    boxes: list[Tensor] | None = None
    box_labels: list[Tensor] | None = None
    semantic: Tensor | None = None

    def to(self, device: Any) -> Batch:
        """The same batch on another device, its images as float32."""

        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(item) for item in value]
            return value.to(device, non_blocking=True) if hasattr(value, "to") else value

        moved = {name: move(value) for name, value in vars(self).items()}
        return Batch(**(moved | {"images": in_floats(moved["images"])}))


def in_floats(images: Tensor) -> Tensor:
    """uint8 images as float32 in 0..1, computed where they are; others as they come."""
    if images.is_floating_point():
        return images
    floats = images.float()
    # by a tensor, for on a GPU torch multiplies by the rounded inverse of a plain number, which gives other values
    return floats.div_(floats.new_full((), 255.0))


@dataclass
class Prediction:
    """A model's answer for one image, on the CPU, before any threshold or suppression.

    Attributes:
        scores: [K] float32 class scores (classification) or [N] scores of boxes (detection).
        boxes: [N, 4] float32 xyxy in pixels of the original image, or None.
        labels: [N] int64 class of each box, or None.
        label_map: [H, W] uint8 semantic class of each pixel of the original image, or None.
    """

    scores: np.ndarray | None = None
    boxes: np.ndarray | None = None
    labels: np.ndarray | None = None
    label_map: np.ndarray | None = None
