"""Where torchvision's FCOS would follow autocast into bfloat16, whose numbers from 256 on are even."""

import numpy as np
import torch

from pipeline.models import tasks
from pipeline.models.detection.fcos import STRIDES
from pipeline.structures import DatasetInfo

SIDE = 512
INFO = DatasetInfo("toy", [], ["a"], 3, "none", "none", "here", image_size=[SIDE, SIDE])
PARAMS = {"backbone": "test_efficientnet", "weights": "none", "channels": 32, "convs": 0}
REACH = 1.40625  # from a place to each side of its box, in anchors of half a stride; of few bits


def test_boxes_under_bfloat16_are_not_rounded_to_it():
    torch.manual_seed(0)
    model = tasks.build("detection/fcos", INFO, PARAMS).eval()
    head = model.network.head
    with torch.no_grad():
        for layer in (head.regression_head.bbox_reg, head.classification_head.cls_logits):
            layer.weight.zero_()
        head.regression_head.bbox_reg.bias.fill_(REACH)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        (found,) = model.predict(torch.rand(1, 3, SIDE, SIDE))
    inside = found.boxes[(found.boxes > 0).all(1) & (found.boxes < SIDE).all(1)]
    assert len(inside) > 20
    widths = {2 * REACH * (stride // 2) for stride in STRIDES}
    assert set((inside[:, 2:] - inside[:, :2]).ravel().tolist()) <= widths
    centres = (inside[:, 2:] + inside[:, :2]) / 2
    assert np.array_equal(centres % min(STRIDES), np.zeros_like(centres))
