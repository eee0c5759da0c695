import pytest
import torch

from pipeline.structures import DatasetInfo


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def info_of():
    """Makes the info of images of ten classes, [channels, side, side]."""

    def make(channels, side, num_classes=10):
        return DatasetInfo(
            "toy",
            ["classification"],
            [str(index) for index in range(num_classes)],
            channels,
            "none",
            "none",
            "drawn here",
            mean=[0.5] * channels,
            std=[0.25] * channels,
            image_size=[side, side],
        )

    return make
