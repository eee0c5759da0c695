import pytest
import torch

from pipeline.params import Online
from pipeline.structures import IGNORE, Batch
from pipeline.training.regularise import augment_batch, cutmix, cutout, flip, mixup, rectangle, shift


@pytest.fixture
def batch():
    """Two grey images of 3 x 4 that count up, with a box and a label map each."""
    images = torch.arange(24, dtype=torch.float32).view(2, 1, 3, 4)
    return Batch(
        images=images,
        image_ids=["a", "b"],
        sizes=[(3, 4), (3, 4)],
        labels=torch.tensor([2, 0]),
        boxes=[torch.tensor([[0.0, 1.0, 3.0, 2.0]]), torch.tensor([[1.0, 0.0, 2.0, 3.0], [3.0, 2.0, 4.0, 3.0]])],
        box_labels=[torch.tensor([5]), torch.tensor([6, 7])],
        semantic=images[:, 0].long(),
    )


def test_flip_mirrors_only_the_chosen_image(batch):
    result = flip(batch, torch.tensor([True, False]))
    assert result.images[0, 0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert result.semantic[0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    assert result.boxes[0].tolist() == [[1, 1, 4, 2]]  # x1 = 4 - 3, x2 = 4 - 0
    assert torch.equal(result.images[1], batch.images[1])
    assert torch.equal(result.semantic[1], batch.semantic[1])
    assert torch.equal(result.boxes[1], batch.boxes[1])


def test_flipping_twice_is_the_identity(batch):
    chosen = torch.tensor([True, True])
    result = flip(flip(batch, chosen), chosen)
    assert torch.equal(result.images, batch.images)
    assert torch.equal(result.semantic, batch.semantic)
    assert all(torch.equal(a, b) for a, b in zip(result.boxes, batch.boxes, strict=True))


def test_flip_of_an_image_without_boxes(batch):
    batch.boxes[0] = torch.zeros(0, 4)
    assert flip(batch, torch.tensor([True, True])).boxes[0].shape == (0, 4)


def test_shift_repeats_the_border_and_moves_the_truth_along(batch):
    # image 0: down by 1/3 of 3 rows = 1; image 1: right by -1/2 of 4 columns = -2
    result = shift(batch, torch.tensor([[1 / 3, 0.0], [0.0, -0.5]]))
    assert result.images[0, 0].tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.images[1, 0].tolist() == [[14, 15, 15, 15], [18, 19, 19, 19], [22, 23, 23, 23]]
    assert result.semantic[0].tolist() == [[IGNORE] * 4, [0, 1, 2, 3], [4, 5, 6, 7]]
    assert result.semantic[1, 0].tolist() == [14, 15, IGNORE, IGNORE]
    assert result.boxes[0].tolist() == [[0, 2, 3, 3]]
    # 1..2 becomes -1..0 and is gone, 3..4 becomes 1..2
    assert result.boxes[1].tolist() == [[1, 2, 2, 3]]
    assert [labels.tolist() for labels in result.box_labels] == [[5], [7]]


def test_shift_cuts_a_box_at_the_border(batch):
    result = shift(batch, torch.tensor([[0.0, 0.5], [0.0, 0.0]]))
    assert result.boxes[0].tolist() == [[2, 1, 4, 2]]  # 0..3 becomes 2..5, the image ends at 4
    assert torch.equal(result.images[1], batch.images[1])


def test_mixup_weighs_images_and_labels_alike(batch):
    result = mixup(batch, torch.tensor([1, 0]), 0.75, 3)
    # pixel 0: 0.75 * 0 + 0.25 * 12; the second image: 0.75 * 12 + 0.25 * 0
    assert result.images[:, 0, 0, 0].tolist() == [3, 9]
    assert result.label_weights.tolist() == [[0.25, 0, 0.75], [0.75, 0, 0.25]]
    assert result.labels.tolist() == [2, 0]


def test_nothing_asked_for_changes_nothing(batch):
    off = Online(flip=0.0, crop=0.0, mixup=0.0)
    assert augment_batch(batch, off, 3, torch.Generator()) is batch


def test_augmentation_follows_its_generator(batch):
    online = Online(flip=0.5, crop=0.4, mixup=0.3)
    first, again, other = (
        augment_batch(batch, online, 3, torch.Generator().manual_seed(seed)).images for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_flip_of_probability_one_takes_all(batch):
    online = Online(flip=1.0, crop=0.0, mixup=0.0)
    assert torch.equal(augment_batch(batch, online, 3, torch.Generator()).images, batch.images.flip(3))


def test_mixup_leaves_batches_without_labels_alone(batch):
    batch.labels = None
    online = Online(flip=0.0, crop=0.0, mixup=0.5)
    assert augment_batch(batch, online, 3, torch.Generator()).label_weights is None


def test_cutout_blanks_a_square_with_the_image_s_mean_and_cuts_it_at_the_edge(batch):
    # 2 x 2 from row 0, column 0; and from row 1, column 3, of which one column is inside
    result = cutout(batch, torch.tensor([[1, 1], [2, 4]]), 2)
    # means of 0..11 and of 12..23
    assert result.images[0, 0].tolist() == [[5.5, 5.5, 2, 3], [5.5, 5.5, 6, 7], [8, 9, 10, 11]]
    assert result.images[1, 0].tolist() == [[12, 13, 14, 15], [16, 17, 18, 17.5], [20, 21, 22, 17.5]]
    assert result.labels is batch.labels
    assert result.label_weights is None
    assert batch.images[0, 0, 0, 0] == 0


def test_cutout_of_no_pixel_changes_nothing(batch):
    assert torch.equal(cutout(batch, torch.tensor([[1, 1], [0, 0]]), 0).images, batch.images)


def test_cutmix_exchanges_a_rectangle_and_mixes_labels_by_its_exact_area(batch):
    result = cutmix(batch, torch.tensor([1, 0]), (1, 2, 3, 4), 3)
    assert result.images[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 18, 19], [8, 9, 22, 23]]
    assert result.images[1, 0].tolist() == [[12, 13, 14, 15], [16, 17, 6, 7], [20, 21, 10, 11]]
    # 4 of 12 pixels are the partner's
    assert result.label_weights.tolist() == [pytest.approx([1 / 3, 0, 2 / 3]), pytest.approx([2 / 3, 0, 1 / 3])]
    assert batch.images[0, 0, 1, 2] == 6


@pytest.mark.parametrize(
    ("share", "centre", "want"),
    [
        (0.75, (0.5, 0.5), (5, 3, 15, 8)),  # half of each side, 10 and 5, around row 10 and column 5
        (0.75, (0.0, 0.99), (0, 7, 5, 10)),  # rows -5..5 and columns 7..12, cut at 0 and 10
        (0.0, (0.5, 0.5), (0, 0, 20, 10)),
        (1.0, (0.3, 0.5), (6, 5, 6, 5)),  # nothing
    ],
)
def test_rectangle_of_an_image_of_20_by_10_by_hand(share, centre, want):
    assert rectangle(share, centre, 20, 10) == want


def test_cutmix_takes_its_share_from_the_area_that_an_edge_leaves(batch):
    online = Online(cutmix=1.0)
    for seed in range(20):
        result = augment_batch(batch, online, 3, torch.Generator().manual_seed(seed))
        changed = (result.images != batch.images)[:, 0].float().mean((1, 2))
        theirs = 1 - result.label_weights[torch.arange(2), batch.labels]
        assert theirs.tolist() == pytest.approx(changed.tolist(), abs=1e-6)


def test_mixup_and_cutmix_share_the_batches_evenly(batch):
    online = Online(mixup=1.0, cutmix=1.0)
    blends = 0
    for seed in range(200):
        result = augment_batch(batch, online, 3, torch.Generator().manual_seed(seed))
        values = set(result.images.flatten().tolist())
        blends += not values <= set(range(24))
    assert 50 < blends < 120  # of those whose partner is another image: half of the half


def test_options_that_are_off_draw_no_random_numbers(batch):
    """So that adding cutout and cutmix has changed no run without them."""
    generator = torch.Generator().manual_seed(3)
    augment_batch(batch, Online(flip=0.5, crop=0.3, mixup=0.2), 3, generator)
    after = torch.rand(4, generator=generator)
    generator = torch.Generator().manual_seed(3)
    torch.rand(2, generator=generator)
    torch.rand(2, 2, generator=generator)
    torch._sample_dirichlet(torch.full((2,), 0.2), generator=generator)
    torch.randperm(2, generator=generator)
    assert torch.equal(after, torch.rand(4, generator=generator))
