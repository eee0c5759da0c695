import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import ParamsError
from pipeline.models import tasks
from pipeline.structures import DatasetInfo
from pipeline.visualise import cam, embedding, points, saliency

INFO = DatasetInfo(
    "toy", ["classification"], ["up", "down"], 3, "", "", "", mean=[0.5] * 3, std=[0.25] * 3, image_size=[32, 32]
)


class OnePatch(nn.Module):
    """Logit 0 sums the image's rows 8..15, columns 16..23; logit 1 its negative; the maps are cells of 8 pixels."""

    def __init__(self):
        super().__init__()
        self.maps = nn.AvgPool2d(8)
        self.feature_info = [{"module": "maps"}]

    def forward(self, images):
        patch = self.maps(images).mean(1)[:, 1, 2]
        return torch.stack([patch, -patch], 1)


def in_patch(heat):
    """Share of the heat inside the patch."""
    return heat[:, 8:16, 16:24].sum((1, 2)) / heat.sum((1, 2))


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) + 0.5


def test_gradient_lights_up_the_patch_that_the_answer_depends_on(images):
    heat = saliency.gradient(OnePatch(), images, torch.tensor([0, 1]))
    assert heat.shape == (2, 32, 32)
    assert in_patch(heat).tolist() == [1, 1]
    assert (heat[:, 8:16, 16:24] == 1).all()
    assert not images.requires_grad


class Weighted(nn.Module):
    """Two maps of 4 x 4: the first a picture's mean in cells, the second constant; logits weigh their means."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 2, 1))
        self.maps[1].weight.data = torch.tensor([[1.0, 0, 0], [0, 0, 0]]).view(2, 3, 1, 1)
        self.maps[1].bias.data = torch.tensor([0.0, 1.0])
        self.feature_info = [{"module": "maps"}]

    def forward(self, images):
        means = self.maps(images).mean((2, 3))
        return torch.stack([means[:, 0] - 0.5 * means[:, 1], means[:, 1]], 1)


def test_grad_cam_by_hand():
    images = torch.zeros(1, 3, 32, 32)
    images[:, 0, 8:16, 16:24] = 1.0
    images[:, 0, 24:, :8] = 0.75
    network = Weighted()
    heat = cam.grad_cam(network, images, torch.tensor([0]))
    # class 0: the first map weighs 1 / 16, the second -0.5 / 16, so 1 - 0.5 in the bright cell, 0.75 - 0.5 in
    # the other, and what is below zero goes; enlarged 8 times, the four pixels at a cell's middle are 1 / 16 of a
    # cell away from it on both axes, so the maximum is 0.5 * (15 / 16)**2, while the image's corner keeps its 0.25
    assert heat[0, 11:13, 19:21] == pytest.approx(np.ones((2, 2)))
    assert heat[0, 28:, :4] == pytest.approx(np.full((4, 4), 0.5 * (16 / 15) ** 2), rel=1e-5)
    assert heat[0, :4] == pytest.approx(np.zeros((4, 32)), abs=1e-6)
    assert in_patch(heat)[0] > 0.3
    # class 1 has only the constant map for it
    assert cam.grad_cam(network, images, torch.tensor([1])) == pytest.approx(np.ones((1, 32, 32)))
    assert not images.requires_grad


def test_grad_cam_of_what_speaks_for_no_class_is_zero():
    network = Weighted()
    heat = cam.grad_cam(network, torch.zeros(1, 3, 32, 32), torch.tensor([0]))
    assert not heat.any()


def test_both_methods_find_the_patch_that_a_trained_network_looks_at():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    params = {"layers": [1, 1, 1, 1], "channels": [16, 16, 16, 16]}
    model = tasks.build("classification/resnet", INFO, params).network
    model[1].maxpool = nn.Identity()
    optimiser = torch.optim.AdamW(model.parameters(), 0.01)
    labels = torch.arange(16) % 2
    for _ in range(25):  # the corner tells the class, the rest is noise
        images = torch.rand(16, 3, 32, 32) * 0.6
        images[:, :, :8, :8] = labels.view(-1, 1, 1, 1).float()
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimiser.step()
    model.eval()
    assert (model(images).argmax(1) == labels).all()
    for method in (cam.grad_cam, saliency.gradient):
        heat = method(model, images, torch.ones(16, dtype=torch.long))[labels == 1]
        inside, all_over = heat[:, :16, :16].mean(), heat.mean()
        assert inside > 1.5 * all_over, method
    torch.set_num_threads(before)


def test_an_unknown_layer_is_named(images):
    with pytest.raises(ParamsError, match=r"options\.layer 'map'.*did you mean 'maps'"):
        cam.grad_cam(OnePatch(), images, torch.tensor([0, 0]), layer="map")
    with pytest.raises(ParamsError, match=r"fix: options\.layer"):
        cam.grad_cam(nn.Conv2d(3, 2, 1), images, torch.tensor([0, 0]))


def test_pca_is_the_svd_of_centred_features():
    features = np.random.default_rng(0).normal(0, [5, 3, 1, 0.5], (30, 4))
    u, s, vt = np.linalg.svd(features - features.mean(0), full_matrices=False)
    signs = np.sign(vt[range(2), np.abs(vt[:2]).argmax(1)])
    assert embedding.pca(features, 0) == pytest.approx(u[:, :2] * s[:2] * signs, abs=1e-10)


def test_tsne_keeps_far_clusters_apart_and_is_the_same_each_time():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    features = rng.normal(0, 1, (40, 60)) + 30 * labels[:, None]
    first, again = (embedding.tsne(features, 3, perplexity=8) for _ in range(2))
    assert first.shape == (40, 2)
    assert np.array_equal(first, again)
    distances = np.linalg.norm(first[:, None] - first[None], axis=2) + 1e9 * np.eye(40)
    assert (labels[distances.argmin(1)] == labels).all()
    within = max(np.linalg.norm(first[labels == k] - first[labels == k].mean(0), axis=1).max() for k in (0, 1))
    assert np.linalg.norm(first[labels == 0].mean(0) - first[labels == 1].mean(0)) > 2 * within


def test_tsne_of_fewer_points_than_its_perplexity():
    features = np.random.default_rng(0).normal(0, 1, (6, 3))
    assert np.isfinite(embedding.tsne(features, 0, perplexity=30)).all()


def test_images_lie_at_their_places_and_overlapping_ones_are_left_out():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    images = [np.full((4, 4, 3), colour, np.uint8) for colour in colours]
    positions = np.array([[0.0, 0.0], [10.0, 10.0], [10.0, 9.0]])
    picture = points.images_at(positions, images, side=100, cell=20)
    assert (picture[80:, :20] == colours[0]).all()  # lowest and leftmost
    assert (picture[:20, 80:] == colours[1]).all()
    assert not (picture == colours[2]).all(-1).any()
    assert (picture == 255).all(-1).sum() == 100 * 100 - 2 * 20 * 20


def test_images_at_one_place_and_grey_ones_are_drawn():
    picture = points.images_at(np.zeros((2, 2)), [np.zeros((3, 3, 1), np.uint8)] * 2, side=50, cell=10)
    assert (picture == 0).all(-1).sum() == 100


@pytest.mark.parametrize("labels", [np.array([0, 1, 1]), None])
def test_scatter_gives_the_same_bytes_without_metadata(tmp_path, labels):
    matplotlib.use("Agg")
    for name in ("a.png", "b.png"):
        points.scatter(tmp_path / name, np.array([[0, 0], [1, 1], [2, 0]]), labels, INFO)
    content = (tmp_path / "a.png").read_bytes()
    assert content == (tmp_path / "b.png").read_bytes()
    assert b"Software" not in content


def test_a_class_is_named_as_it_is_and_never_read_as_a_formula(tmp_path):
    info = DatasetInfo("toy", ["classification"], ["a $x_{$"], channels=3, licence="", attribution="", source="")
    points.scatter(tmp_path / "a.png", np.zeros((1, 2)), np.array([0]), info)
    assert (tmp_path / "a.png").is_file()
