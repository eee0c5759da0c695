"""torchvision's AutoAugment family as a transform of albumentations that moves all truth.

torchvision draws the operations and applies them to the image alone; here those that move pixels (shear, translate,
rotate) are applied to masks, boxes and keypoints too. Imported where a policy asks for it: torchvision takes seconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from albumentations import DualTransform
from albumentations.core.transforms_interface import BaseTransformInitSchema
from albumentations.core.type_definitions import ALL_TARGETS
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

FAMILY: dict[str, type] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
}
MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
Operation = tuple[str, float]


class Automatic(DualTransform):
    """One of torchvision's automatic augmentations.

    Args:
        member: a key of FAMILY.
        fill: value of pixels that come from outside the image.
        options: torchvision's own arguments of that class.
        p: probability, 0..1.
    """

    _targets = ALL_TARGETS

    class InitSchema(BaseTransformInitSchema):
        """The arguments, for albumentations' own check."""

        member: str
        fill: float
        options: dict[str, Any]

    def __init__(self, member: str, fill: float, options: dict[str, Any], p: float = 1.0) -> None:
        super().__init__(p=p)
        self.operations: list[Operation] = []
        self.drawing = _recording(FAMILY[member], self.operations)(
            interpolation=v2.InterpolationMode.BILINEAR, fill=fill, **options
        )

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws the operations and applies them to the image, once for all targets."""
        self.operations.clear()
        # torchvision knows no other source of random numbers than torch's own
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.py_random.getrandbits(63))
            image = self.drawing(_tensor(data["image"].transpose(2, 0, 1)))
        moves = [operation for operation in self.operations if operation[0] in MOVING]
        return {"result": image.permute(1, 2, 0).numpy(), "moves": moves}

    def apply(self, img: np.ndarray, result: np.ndarray, **params: Any) -> np.ndarray:
        """[H, W, C] uint8, as it was drawn."""
        return result

    def apply_to_masks(self, masks: np.ndarray, moves: list[Operation], **params: Any) -> np.ndarray:
        """[N, H, W] of any type, 0 where nothing moved in."""
        return self._replayed(tv_tensors.Mask(_tensor(masks)), moves).numpy()

    def apply_to_keypoints(self, keypoints: np.ndarray, moves: list[Operation], **params: Any) -> np.ndarray:
        """[N, 2 or more]; albumentations' points are indices of pixels, torchvision's places on the image."""
        moved = keypoints.copy()
        moved[:, :2] = self._moved(keypoints[:, :2] + 0.5, moves, params["shape"]) - 0.5
        return moved

    def apply_to_bboxes(self, bboxes: np.ndarray, moves: list[Operation], **params: Any) -> np.ndarray:
        """[N, 4 or more], in shares of the image: the upright boxes around the moved corners."""
        height, width = params["shape"][:2]
        corners = bboxes[:, [0, 1, 2, 1, 0, 3, 2, 3]].reshape(-1, 2) * (width, height)
        corners = self._moved(corners, moves, params["shape"]).reshape(-1, 4, 2) / (width, height)
        moved = bboxes.copy()
        moved[:, :2], moved[:, 2:4] = corners.min(1), corners.max(1)
        return moved

    def _moved(self, points: np.ndarray, moves: list[Operation], shape: tuple[int, ...]) -> np.ndarray:
        """[N, 2] places on the image."""
        places = torch.from_numpy(np.ascontiguousarray(points, np.float64))
        return self._replayed(tv_tensors.KeyPoints(places, canvas_size=shape[:2]), moves).numpy()

    def _replayed(self, truth: Tensor, moves: list[Operation]) -> Tensor:
        # the very operations that the image went through, which torchvision dispatches on the type of the truth
        for name, magnitude in moves:
            truth = self.drawing._apply_image_or_video_transform(
                truth, name, magnitude, interpolation=v2.InterpolationMode.NEAREST, fill={type(truth): 0}
            )
        return truth.as_subclass(Tensor)


def _recording(member: type, operations: list[Operation]) -> Any:
    """The class with each operation that it applies noted down."""

    class Recording(member):  # type: ignore[misc]
        def _apply_image_or_video_transform(
            self, image: Any, transform_id: str, magnitude: float, interpolation: Any, fill: Any
        ) -> Any:
            if not isinstance(image, tv_tensors.TVTensor):
                operations.append((transform_id, magnitude))
            return super()._apply_image_or_video_transform(image, transform_id, magnitude, interpolation, fill)

    return Recording


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
