import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import PipelineError
from pipeline.models.classification import rotation
from pipeline.structures import Batch


def test_the_loss_is_that_of_all_four_turns(info_of):
    model = rotation.Rotation(nn.Flatten(), info_of(1, 2), neighbours=1, memory=1)
    images = torch.rand(3, 1, 2, 2)
    losses = []
    for image in images[:, 0]:
        # counter-clockwise: the right column becomes the top row
        turned = torch.stack([image[:, 1], image[:, 0]])
        twice = torch.stack([turned[:, 1], turned[:, 0]])
        thrice = torch.stack([twice[:, 1], twice[:, 0]])
        for turn, each in enumerate((image, turned, twice, thrice)):
            losses.append(F.cross_entropy(model.head(each.flatten())[None], torch.tensor([turn])))
    found = model.loss(Batch(images, [""] * 3, [(2, 2)] * 3))["loss"]
    torch.testing.assert_close(found, torch.stack(losses).mean())
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    # four turns that look alike: ln 4
    assert model.loss(Batch(images, [""] * 3, [(2, 2)] * 3))["loss"].item() == pytest.approx(1.386294, abs=1e-6)


def test_labels_are_not_needed(info_of):
    model = rotation.build(info_of(3, 32), encoder_params={"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]})
    assert torch.isfinite(model.loss(Batch(torch.rand(2, 3, 32, 32), ["", ""], [(32, 32)] * 2))["loss"])


def test_only_square_images_can_be_turned(info_of):
    info = info_of(1, 8)
    info.image_size = [8, 12]
    with pytest.raises(PipelineError, match=r"images of \[8, 12\] cannot be turned; fix: set training.image_size"):
        rotation.build(info)
