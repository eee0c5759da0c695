import math

import pytest
import torch

from pipeline.training.state import Losses, best_epoch, higher_is_better


@pytest.mark.parametrize(
    ("column", "higher"),
    [("val_top1", True), ("val_miou", True), ("val_loss", False), ("val_loss_dice", False), ("loss", False)],
)
def test_losses_fall_and_metrics_rise(column, higher):
    assert higher_is_better(column) is higher


def test_the_best_epoch_is_the_first_of_equals_and_never_one_that_is_no_number():
    rows = [{"epoch": i, "val_loss": loss} for i, loss in enumerate([math.nan, 0.4, 0.3, 0.3, math.inf], 1)]
    assert best_epoch(rows, "val_loss") == 3
    assert best_epoch([{"epoch": 1, "val_top1": 0.2}, {"epoch": 2, "val_top1": 0.5}], "val_top1") == 2
    assert best_epoch([{"epoch": 1, "val_loss": math.nan}, {"epoch": 2, "val_loss": math.nan}], "val_loss") == 2


def test_losses_are_summed_over_images_in_the_order_of_steps():
    losses = Losses()
    losses.add([({"loss": torch.tensor(1.0), "box": torch.tensor(0.5)}, 4)], torch.tensor(3.0))
    losses.add([({"loss": torch.tensor(2.0), "box": torch.tensor(1.5)}, 2)], torch.tensor(5.0))
    assert losses.sums == {}
    assert losses.read() is None
    assert losses.sums == {"loss": 8.0, "loss_box": 5.0}
    assert (losses.num, losses.norms, losses.steps) == (6, 8.0, 2)
    assert losses.read() is None
    assert losses.num == 6


def test_what_is_not_finite_is_named_with_its_step_also_where_many_are_read_at_once():
    losses = Losses()
    for value in (1.0, 2.0, math.inf, math.nan):
        losses.add([({"loss": torch.tensor(value), "box": torch.tensor(0.5)}, 4)], torch.tensor(1.0))
    assert losses.read() == "step 3: the loss is not finite (loss inf, box 0.5); fix: lower lr"


def test_an_image_that_stands_in_does_not_count():
    losses = Losses()
    losses.add([({"loss": torch.tensor(math.nan)}, 0)], torch.tensor(1.0))
    assert losses.read() is None
    assert losses.num == 0
