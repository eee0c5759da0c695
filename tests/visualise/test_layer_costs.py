import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models import tasks
from pipeline.structures import DatasetInfo
from pipeline.visualise.layer_costs import layers_of

UNET = {"encoder": "test_efficientnet", "weights": "none", "decoder_channels": [16, 16, 8, 8, 8]}


def build(model, channels, side, num_classes=1000, **options):
    info = DatasetInfo(
        "toy",
        ["classification"],
        [str(index) for index in range(num_classes)],
        channels,
        "",
        "",
        "",
        mean=[0.5] * channels,
        std=[0.25] * channels,
        image_size=[side, side],
        semantic_classes=["background", "thing"],
    )
    with torch.device("meta"):
        return tasks.builder(model)(info, **options)


def test_the_lectures_alexnet_by_hand():
    layers = layers_of(build("classification/cifar_alexnet", 3, 32, 10), (3, 32, 32))
    rows = {(layer.kind, layer.shape): layer for layer in layers if layer.kind in ("Conv2d", "MaxPool2d", "Linear")}
    table = {
        # parameters: (kh kw in + 1) out; FLOPs: 2 kh kw in for each number; bytes: 4 for each; field and jump
        ("Conv2d", (64, 32, 32)): ((49 * 3 + 1) * 64, 2 * 49 * 3 * 64 * 1024, 4 * 64 * 1024, 7, 1),
        ("MaxPool2d", (64, 16, 16)): (0, 0, 4 * 64 * 256, 8, 2),
        ("Conv2d", (128, 16, 16)): ((25 * 64 + 1) * 128, 2 * 25 * 64 * 128 * 256, 4 * 128 * 256, 16, 2),
        ("MaxPool2d", (128, 8, 8)): (0, 0, 4 * 128 * 64, 18, 4),
        ("Conv2d", (256, 8, 8)): ((9 * 128 + 1) * 256, 2 * 9 * 128 * 256 * 64, 4 * 256 * 64, 26, 4),
        ("MaxPool2d", (256, 4, 4)): (0, 0, 4 * 256 * 16, 30, 8),
        ("Linear", (384,)): (4097 * 384, 2 * 4096 * 384, 4 * 384, 54, 8),  # 30 + (4 - 1) 8
        ("Linear", (192,)): (385 * 192, 2 * 384 * 192, 4 * 192, 54, 8),
        ("Linear", (10,)): (193 * 10, 2 * 192 * 10, 4 * 10, 54, 8),
    }
    found = {
        key: (row.parameters, row.flops, row.memory, row.receptive_field[0], row.jump[0]) for key, row in rows.items()
    }
    assert found == table
    assert [layer.kernel for layer in layers if layer.kind == "Conv2d"] == [(7, 7), (5, 5), (3, 3)]


def test_vgg_16_at_224():
    layers = layers_of(build("classification/vgg", 3, 224), (3, 224, 224))
    assert sum(layer.parameters for layer in layers) == 138357544
    convolutions = [layer for layer in layers if layer.kind == "Conv2d"]
    # multiply-adds: 9 in out of each of h w places; 15.3 thousand million, and 123.6 million dense
    widths = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), *[(256, 256)] * 2, (256, 512), *[(512, 512)] * 5]
    sides = [224] * 2 + [112] * 2 + [56] * 3 + [28] * 3 + [14] * 3
    by_hand = sum(9 * i * o * side**2 for (i, o), side in zip(widths, sides, strict=True))
    dense = 25088 * 4096 + 4096 * 4096 + 4096 * 1000
    assert sum(layer.flops for layer in convolutions) == 2 * by_hand == 2 * 15346630656
    assert sum(layer.flops for layer in layers) == 2 * (by_hand + dense)
    last = [layer for layer in layers if layer.kind == "MaxPool2d"][-1]
    assert (last.receptive_field, last.jump) == ((212, 212), (32, 32))  # Araujo et al. 2019, table


def test_resnet_18_and_its_receptive_field():
    layers = layers_of(build("classification/resnet", 3, 224), (3, 224, 224))
    assert sum(layer.parameters for layer in layers) == 11689512
    last = [layer for layer in layers if layer.kind == "Conv2d"][-1]
    # 7; 11 behind the pool; + 4 (3 - 1) 4 = 43; + 2 * 4 + 3 * 2 * 8 = 99; + 2 * 8 + 3 * 2 * 16 = 211; + 16 * 2 + 6 * 32
    assert last.receptive_field == (435, 435)
    assert 2 * 1.81e9 < sum(layer.flops for layer in layers) < 2 * 1.82e9  # table 1 of the paper: 1.8e9


@pytest.mark.parametrize(
    ("model", "channels", "side", "options"),
    [
        ("classification/cifar_alexnet", 3, 32, {}),
        ("classification/alexnet", 3, 227, {}),
        ("classification/googlenet", 1, 8, {"small_stem": True}),
        ("classification/resnext", 3, 32, {}),
        ("classification/se_resnet", 3, 32, {}),
        ("classification/densenet", 3, 32, {"layers": [2, 2]}),
        ("classification/mobilenet", 1, 8, {}),
        ("classification/shufflenet", 3, 32, {}),
        ("classification/timm_model", 3, 32, {"name": "vit_tiny_patch16_224"}),
        ("classification/torchvision_model", 3, 32, {"name": "swin_t"}),
        ("segmentation/unet", 3, 64, UNET),
    ],
)
def test_totals_are_those_of_torch_and_of_the_parameters(model, channels, side, options):
    network = build(model, channels, side, 10, **options).eval()
    layers = layers_of(network, (channels, side, side))
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in network.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, channels, side, side, device="meta"))
    assert sum(layer.flops for layer in layers) == counter.get_total_flops() > 0


def test_grouped_and_transposed_convolutions_by_hand():
    network = nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=4), nn.ConvTranspose2d(12, 2, 4, 2, padding=1))
    grouped, enlarging = layers_of(network, (8, 5, 5))
    assert grouped.parameters == (9 * 8 // 4 + 1) * 12
    assert grouped.flops == 2 * 9 * 8 // 4 * 12 * 25
    assert enlarging.shape == (2, 10, 10)
    assert enlarging.flops == 2 * 12 * 25 * 2 * 16  # each of 12 x 25 numbers is spread over 2 maps of 4 x 4


def test_memory_is_of_new_results_only():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(inplace=True))

        def forward(self, image):
            out = self.inner(image).flatten(1)
            out += image.flatten(1)
            return torch.cat([out, out * 2], 1)

    layers = layers_of(Sums(), (1, 3, 3))
    # the convolution 9 numbers, nothing in place or for a view; then 9 doubled and 18 side by side
    assert [(layer.kind, layer.memory) for layer in layers] == [("Conv2d", 36), ("mul cat", 4 * 27)]


def test_parameters_count_once_and_those_that_only_train_stand_at_the_end():
    layers = layers_of(build("classification/googlenet", 3, 32, 10, small_stem=True), (3, 32, 32))
    rest = [layer for layer in layers if layer.kind.endswith("(training only)")]
    assert rest == layers[-len(rest) :]
    assert all("auxiliaries" in layer.name for layer in rest)
    dense = nn.Linear(4, 4)
    twice = layers_of(nn.Sequential(nn.Flatten(), dense, dense), (1, 2, 2))
    assert [layer.parameters for layer in twice] == [0, 20, 0]
    assert [layer.flops for layer in twice] == [0, 32, 32]
