import numpy as np
import pytest
import skimage.data
import timm
import torch
import torchvision
from safetensors.torch import save_file

from pipeline.errors import ParamsError, PipelineError
from pipeline.models import backbones
from pipeline.models.layers import Normalise

ESPRESSO, LITE0, TINY = 967, "tf_efficientnet_lite0", "test_efficientnet"


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lite0():
    return backbones.create(LITE0, "installed").eval()


def test_installed_weights_fill_every_tensor_of_lite0(lite0):
    state = backbones.state_of(LITE0, "installed")
    assert len(state) == 296
    assert list(state) == list(lite0.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in lite0.state_dict().items())


def test_installed_weights_see_an_espresso_in_a_cup_of_coffee(lite0):
    image = skimage.data.coffee()
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    pixels = backbones.resized(image[top : top + side, left : left + side], 224).copy()
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        probabilities = lite0(Normalise(*backbones.normalisation(LITE0))(batch)).softmax(1)[0]
    assert probabilities.argmax() == ESPRESSO
    assert probabilities[ESPRESSO] > 0.5


def test_features_are_what_the_classifier_sees(lite0):
    image = skimage.data.coffee()[:80, :80]
    extractor = backbones.extractor(LITE0, "installed", 64, channels=3)
    assert extractor.dimension == 1280
    batch = torch.from_numpy(backbones.resized(image, 64).copy()).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        maps = lite0.forward_features(Normalise(*backbones.normalisation(LITE0))(batch))
    assert extractor([image])[0] == pytest.approx(maps.mean((2, 3))[0].numpy(), rel=1e-4, abs=1e-5)


def test_random_weights_are_the_same_each_time_and_leave_the_seed_alone():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    first = backbones.extractor(TINY, "none", 32, channels=3)([image])
    assert torch.equal(torch.rand(1), want)
    assert np.array_equal(first, backbones.extractor(TINY, "none", 32, channels=3)([image]))


def test_grey_images_are_seen_as_colourless_ones():
    extractor = backbones.extractor(TINY, "none", 64, channels=1)
    grey = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    assert extractor([grey])[0] == pytest.approx(extractor([np.repeat(grey, 3, axis=2)])[0], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("stride", "modules"),
    [
        (0, ()),
        (2, ("conv_stem", "blocks.0")),
        (8, ("conv_stem", "blocks.0", "blocks.1", "blocks.2")),
        (16, ("conv_stem", "blocks.0", "blocks.1", "blocks.2", "blocks.3", "blocks.4")),
    ],
)
def test_freeze_fixes_the_weights_up_to_the_stride(stride, modules):
    network = timm.create_model(LITE0, features_only=True, out_indices=(2, 3, 4))
    assert backbones.freeze(network, stride) is network
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (not name.startswith(tuple(f"{module}." for module in modules))), name


def test_freeze_keeps_the_statistics_of_batch_norms_in_training():
    network = backbones.freeze(timm.create_model(TINY, features_only=True), 0).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(torch.rand(4, 3, 64, 64) * 9)
    assert any("running_mean" in key for key in before)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert not [name for name, _ in network.named_parameters() if "bn" in name]


def test_weights_of_a_file_are_loaded(tmp_path):
    source = timm.create_model(TINY)
    path = tmp_path / "tiny.safetensors"
    save_file(source.state_dict(), path)
    maps = backbones.create(TINY, str(path), features_only=True)
    assert torch.equal(maps.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bn1.weight"), "tensor 'bn1.weight' is missing"),
        (lambda s: s.update({"bn1.bias": torch.zeros(3)}), r"'bn1.bias' is \(3,\), the network wants \(24,\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_tensor(tmp_path, change, message):
    state = timm.create_model(TINY).state_dict()
    change(state)
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(PipelineError, match=message):
        backbones.create(TINY, str(tmp_path / "tiny.safetensors"))


@pytest.mark.parametrize("name", [TINY, "torchvision/resnet18"])
def test_a_damaged_or_absent_file_of_weights_is_named(tmp_path, name):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(ParamsError, match=r"weights\.safetensors': no such file; fix: put it there"):
        backbones.extractor(name, str(path), 32, channels=3)
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(PipelineError, match=r"weights\.safetensors: not a readable safetensors file"):
        backbones.extractor(name, str(path), 32, channels=3)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("tf_efficientnet_lite9", "none", "did you mean 'tf_efficientnet_lite"),
        ("zzzzzzzz", "none", f"timm has no such model \\(choices: {LITE0}\\)"),
        ("torchvision/resnet19", "none", "did you mean 'resnet1"),
        ("torchvision/resnet18", "installed", "no installed package carries its weights; fix: pretrained"),
        (TINY, "installed", f"no installed package carries its weights .*{LITE0}"),
    ],
)
def test_unknown_names_are_one_line_with_near_ones(name, weights, message):
    with pytest.raises(ParamsError, match=message) as caught:
        backbones.extractor(name, weights, 32, channels=3)
    assert "\n" not in str(caught.value)


def test_torchvision_features_are_the_pooled_maps():
    extractor = backbones.extractor("torchvision/resnet18", "none", 32, channels=3)
    assert extractor.dimension == 512
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    normalise, network = extractor.network
    whole = torchvision.models.resnet18(weights=None)
    whole.load_state_dict(network.state_dict(), strict=False)
    pooled = {}
    whole.eval().avgpool.register_forward_hook(lambda _module, _inputs, output: pooled.update(maps=output))
    with torch.inference_mode():
        whole(normalise(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255))
    assert extractor([image]) == pytest.approx(pooled["maps"].flatten(1).numpy(), rel=1e-4, abs=1e-5)


def test_pixels_are_the_image_itself_in_unit_range():
    extractor = backbones.extractor("pixels", "none", 2, channels=1)
    assert extractor.dimension == 4
    image = np.array([[[0], [51]], [[102], [255]]], np.uint8)
    assert extractor([image, 255 - image]).tolist() == [
        pytest.approx([0, 0.2, 0.4, 1]),
        pytest.approx([1, 0.8, 0.6, 0]),
    ]


def test_pixels_are_stretched_to_their_size():
    image = np.zeros((4, 8, 3), np.uint8)
    image[..., 0] = 255
    features = backbones.extractor("pixels", "none", 2, channels=3)([image])
    assert features.tolist() == [[1, 0, 0] * 4]


def test_normalise_by_hand():
    layer = Normalise([0.5, 0.0, 0.25], [0.5, 1.0, 0.0])
    # a grey 0.25 in three channels: (0.25 - 0.5) / 0.5, (0.25 - 0) / 1, and 0 over the least std of 1e-6
    assert layer(torch.full((1, 1, 1, 1), 0.25)).flatten().tolist() == [-0.5, 0.25, 0.0]
