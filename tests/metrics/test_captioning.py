import doctest
import math

import numpy as np
import pytest

from pipeline.metrics import bootstrap, captioning

NOUNS = ["cat", "dog", "horse", "tree", "boat"]
VERBS = ["sits on", "runs past", "looks at", "stands by"]


def random_captions(num=30, seed=0):
    """A caption and two to four references of each image, about the same things in other words."""
    rng = np.random.default_rng(seed)

    def sentence(noun, other):
        adjective = rng.choice(["big", "small", "red"]) + " " if rng.random() < 0.5 else ""
        ending = " in the sun today" if rng.random() < 0.3 else ""
        return f"a {adjective}{noun} {rng.choice(VERBS)} the {other}{ending}"

    pairs = [rng.choice(NOUNS, 2) for _ in range(num)]
    candidates = [sentence(*(pair if rng.random() < 0.8 else pair[::-1])) for pair in pairs]
    return candidates, [[sentence(*pair) for _ in range(rng.integers(2, 5))] for pair in pairs]


def test_words_as_documented():
    assert doctest.testmod(captioning).failed == 0
    assert captioning.words("Don\u2019t \u2013 they'll go... (really)!") == ["do", "n't", "they", "'ll", "go", "really"]
    assert captioning.words(" ,. ") == []


def test_bleu_and_rouge_worked_by_hand():
    result = captioning.evaluate(candidates=["the cat sat"], references=[["the cat sat down here", "a cat"]])
    # 3 of 3 words, 2 of 2 pairs, 1 of 1 triple; the closest reference has 2 words (1 off), so there is no penalty
    assert result.metrics["bleu1"] == pytest.approx(1)
    assert result.metrics["bleu3"] == pytest.approx(1)
    # the longest common subsequences have 3 and 1 words: precision 3/3, recall 3/5 (of 1/2)
    assert result.metrics["rouge_l"] == pytest.approx((1 + 1.44) * 1 * 0.6 / (0.6 + 1.44 * 1))
    assert result.metrics["cider"] is None  # of one image every word is in every image


def test_short_captions_are_penalised():
    result = captioning.evaluate(candidates=["a cat"], references=[["a cat on a mat"]])
    assert result.metrics["bleu1"] == pytest.approx(math.exp(1 - 5 / 2))


def test_repeated_words_count_as_often_as_in_one_reference():
    # "the" occurs twice in the first reference, at most: 2 of 7
    result = captioning.evaluate(
        candidates=["the the the the the the the"], references=[["the cat is on the mat", "there is a cat on the mat"]]
    )
    assert result.metrics["bleu1"] == pytest.approx(2 / 7)


def test_cider_of_two_images_worked_by_hand():
    # "cat" and "dog" are each in one of two images: weight ln 2; "a" is in both: 0. The first caption has cat and
    # a-cat as its reference: similarity 1 of 1 and of 2 words, none of 3 and 4; the second has the wrong animal
    result = captioning.evaluate(candidates=["a cat", "a cat"], references=[["a cat"], ["a dog"]])
    assert result.per_image.column("cider").to_pylist() == pytest.approx([10 * (1 + 1) / 4, 0])
    assert result.metrics["cider"] == pytest.approx(2.5)


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_pycocoevalcap(seed, capsys):
    bleu = pytest.importorskip("pycocoevalcap.bleu.bleu_scorer")
    from pycocoevalcap.cider.cider_scorer import CiderScorer
    from pycocoevalcap.rouge.rouge import Rouge

    candidates, references = random_captions(seed=seed)
    candidates[3] = "horse"  # shorter than a run of four
    result = captioning.evaluate(candidates=candidates, references=references)
    bleus, ciders = bleu.BleuScorer(n=4), CiderScorer(n=4, sigma=6.0)
    for candidate, of in zip(candidates, references, strict=True):
        bleus += (candidate, of)
        ciders += (candidate, of)
    expected, _ = bleus.compute_score(option="closest")
    assert [result.metrics[f"bleu{num}"] for num in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-12)
    numbered = range(len(candidates))
    rouge, by_image = Rouge().compute_score(
        {i: references[i] for i in numbered}, {i: [candidates[i]] for i in numbered}
    )
    assert result.metrics["rouge_l"] == pytest.approx(rouge, rel=1e-12)
    assert result.per_image.column("rouge_l").to_pylist() == pytest.approx(by_image.tolist(), rel=1e-12)
    cider, by_image = ciders.compute_score()
    assert result.metrics["cider"] == pytest.approx(cider, rel=1e-12)
    assert result.per_image.column("cider").to_pylist() == pytest.approx(by_image.tolist(), rel=1e-10, abs=1e-12)


def test_the_longest_common_subsequence_equals_the_table_of_prefixes():
    rng = np.random.default_rng(0)
    for _ in range(50):
        first, second = (rng.choice(list("abc"), rng.integers(0, 9)).tolist() for _ in range(2))
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        for i, one in enumerate(first):
            for j, other in enumerate(second):
                table[i + 1, j + 1] = table[i, j] + 1 if one == other else max(table[i, j + 1], table[i + 1, j])
        assert captioning.longest_common(first, second) == table[-1, -1]


def test_a_resample_equals_the_evaluation_of_its_duplicated_images():
    candidates, references = random_captions(num=12)
    table = captioning.evaluate(candidates=candidates, references=references).per_image
    weights = np.vstack([np.ones((1, 12), np.uint16), bootstrap.weights(12, num_resamples=5)])
    result = captioning.resampled(table, weights)
    assert list(result) == list(captioning.METRICS)
    for index, row in enumerate(weights):
        copies = [i for i, num in enumerate(row) for _ in range(num)]
        again = captioning.evaluate(
            candidates=[candidates[i] for i in copies], references=[references[i] for i in copies]
        )
        for name, value in again.metrics.items():
            if name != "cider" or index == 0:  # the rarity of words stays that of the whole set
                assert result[name][index] == pytest.approx(value, rel=1e-12), name
    ciders = table.column("cider").to_numpy()
    assert result["cider"] == pytest.approx(weights @ ciders / 12, rel=1e-12)


def test_an_empty_caption_scores_zero_and_nothing_is_undefined():
    result = captioning.evaluate(candidates=["", "a dog"], references=[["a cat"], ["a dog"]])
    assert result.per_image.column("rouge_l").to_pylist() == [0.0, 1.0]
    assert result.per_image.column("cider").to_pylist()[0] == 0.0
    empty = captioning.evaluate(candidates=[], references=[])
    assert empty.metrics == dict.fromkeys(captioning.METRICS)


def test_an_image_without_reference_is_refused():
    with pytest.raises(ValueError, match="image 1 has no reference"):
        captioning.evaluate(candidates=["a", "b"], references=[["a"], []])
