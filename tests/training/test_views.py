import numpy as np
import pytest
import torch

from pipeline.training.inference import Ensemble, mean
from pipeline.training.views import shifted, views

RAMP = torch.arange(12.0).view(1, 1, 3, 4)


def test_the_image_itself_comes_first_and_both_kinds_make_ten():
    images = torch.rand(2, 3, 32, 16)
    for kinds, num in (((), 1), (("flip",), 2), (("shift",), 5), (("flip", "shift"), 10)):
        found = list(views(images, kinds))
        assert len(found) == num
        assert torch.equal(found[0], images)
        assert all(view.shape == images.shape for view in found)
        assert len({view.numpy().tobytes() for view in found}) == num
    assert torch.equal(list(views(images, ["flip"]))[1], images.flip(3))


def test_shifts_repeat_the_border_and_are_a_sixteenth_of_each_side():
    assert shifted(RAMP, 1, 0)[0, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert shifted(RAMP, 0, -2)[0, 0].tolist() == [[2, 3, 3, 3], [6, 7, 7, 7], [10, 11, 11, 11]]
    assert torch.equal(shifted(RAMP, 0, 0), RAMP)
    tall = torch.rand(1, 1, 64, 16)
    _, down, up, right, left = views(tall, ["shift"])
    assert torch.equal(down[:, :, 4:], tall[:, :, :-4])
    assert torch.equal(up[:, :, :-4], tall[:, :, 4:])
    assert torch.equal(right[:, :, :, 1:], tall[:, :, :, :-1])
    assert torch.equal(left[:, :, :, :-1], tall[:, :, :, 1:])


def test_a_mean_is_of_probabilities_and_one_answer_stays_as_it_is():
    one, other = ({"scores": np.array(scores, np.float32)} for scores in ([0.9, 0.1], [0.2, 0.8]))
    found = mean([one, other])["scores"]
    assert found == pytest.approx([0.55, 0.45], abs=1e-7)
    assert found.dtype == np.float32
    assert mean([one]) is one


def test_an_ensemble_averages_its_members():
    class Member:
        probabilities = True

        def __init__(self, *scores):
            self.scores = np.array(scores, np.float32)

        def __call__(self, images):
            return [{"scores": self.scores * image.mean()} for image in images]

    ensemble = Ensemble([Member(1.0, 0.0), Member(0.25, 0.75), Member(0.25, 0.75)])
    first, second = ensemble([np.ones((2, 2, 1)), np.zeros((2, 2, 1))])
    assert first["scores"].tolist() == [0.5, 0.5]
    assert second["scores"].tolist() == [0.0, 0.0]
    assert ensemble.probabilities
