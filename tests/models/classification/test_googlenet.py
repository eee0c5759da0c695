import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ParamsError
from pipeline.models import tasks
from pipeline.models.classification import googlenet
from pipeline.structures import Batch

TOY = {"width": 0.0625, "small_stem": True}


def test_an_inception_module_puts_its_four_looks_side_by_side():
    widths = (2, 3, 4, 1, 2, 1)

    def convolution(channels, out, kernel):
        layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
        nn.init.constant_(layer.weight, 1.0)
        return layer

    module = googlenet.Inception(1, widths, convolution)
    image = torch.zeros(1, 1, 7, 7)
    image[0, 0, 3, 3] = 1.0
    out = module(image)
    assert out.shape == (1, 2 + 4 + 2 + 1, 7, 7)
    # each look finds the point as far as its kernel reaches: 1x1, 3x3 and 5x5 around it, and a pool of 3x3
    assert [int((out[0, i] > 0).sum()) for i in range(9)] == [1, 1, 9, 9, 9, 9, 25, 25, 9]


def test_parameters_of_the_papers_network_without_auxiliary_classifiers(info_of):
    with torch.device("meta"):
        network = googlenet.build(info_of(3, 224, num_classes=1000), norm="none", auxiliary_weight=0.0)
    assert sum(p.numel() for p in network.parameters()) == 6998552  # as in Caffe's bvlc_googlenet


def test_auxiliary_losses_count_three_tenths_in_training_and_nothing_in_evaluation(info_of):
    info = info_of(3, 16)
    model = tasks.Classification(googlenet.build(info, dropout=0.0, **TOY))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    labels = torch.tensor([1, 7, 3, 3])
    batch = Batch(torch.rand(4, 3, 16, 16), list("abcd"), [(16, 16)] * 4, labels)
    outputs = model.train().network(batch.images)
    assert [weight for weight, _ in outputs] == [1.0, 0.3, 0.3]
    main, first, second = (F.cross_entropy(logits, labels) for _, logits in outputs)
    assert model.loss(batch)["loss"].item() == pytest.approx((main + 0.3 * first + 0.3 * second).item(), rel=1e-5)
    logits = model.eval().network(batch.images)
    assert logits.shape == (4, 10)
    assert model.loss(batch)["loss"].item() == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_without_weight_there_are_no_auxiliary_classifiers(info_of):
    network = googlenet.build(info_of(1, 8), auxiliary_weight=0.0, **TOY).train()
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert not [key for key in network.state_dict() if "auxiliar" in key]


def test_both_stems_lead_to_28_and_half_of_it_as_in_table_1(info_of):
    with torch.device("meta"):
        network = googlenet.build(info_of(3, 224))[1].eval()
        maps, sides = network.stem(torch.zeros(1, 3, 224, 224)), []
        for module in network.inception.values():
            sides.append(maps.shape[2])
            maps = module(maps)
    assert sides == [28, 28, 14, 14, 14, 14, 14, 7, 7]
    assert maps.shape == (1, 1024, 7, 7)


def test_a_width_of_nothing_is_told(info_of):
    with pytest.raises(ParamsError, match="googlenet: width 0"):
        googlenet.build(info_of(3, 32), width=0.0)
