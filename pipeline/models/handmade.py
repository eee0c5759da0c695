"""Features that were thought out by hand, before networks learnt theirs: colours, edges, and words of patches.

Each is an extractor as `backbones.Extractor` has it; its keyword-only arguments are the `options` of an entry of
`features`. None needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pipeline.errors import ParamsError, PipelineError
from pipeline.models.backbones import resized

Small = Annotated[int, Field(ge=1, le=256)]


class ColourHistogram:
    """The share of an image's pixels in each cell of the colour cube (Swain and Ballard 1991, section 2).

    It knows nothing of where a colour is, so that turning an image changes nothing; `grid` cuts it into squares with a
    histogram each.

    Args:
        image_size: side that images are stretched to.
        channels: 1 or 3.
        bins: parts of each channel; grey images have `bins` cells, others bins^3.
        space: rgb, or hsv, in which hue stands apart from light; of no matter for grey images.
        grid: squares along each side.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        *,
        bins: Annotated[int, Field(ge=2, le=32)] = 4,
        space: Literal["rgb", "hsv"] = "rgb",
        grid: Small = 1,
    ) -> None:
        self.image_size, self.channels = image_size, channels
        self.bins, self.space, self.grid = bins, space, grid
        self.dimension = grid**2 * bins**channels
        self.state: dict[str, np.ndarray] = {}
        _check_size(image_size, grid, f"a grid of {grid}")

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """B images [H, W, C] uint8 -> [B, D] float32; the histogram of each square sums to 1."""
        return np.stack([self._of(resized(image, self.image_size)) for image in images])

    def _of(self, image: np.ndarray) -> np.ndarray:
        if self.space == "hsv" and self.channels == 3:
            from PIL import Image

            image = np.asarray(Image.fromarray(image).convert("HSV"))
        levels = image.astype(np.int64) * self.bins // 256
        cells = levels @ self.bins ** np.arange(self.channels)[::-1]
        return pooled(cells, self.bins**self.channels, self.grid)


class Hog:
    """Histograms of oriented gradients (Dalal and Triggs 2005), by scikit-image: the shape that edges make.

    Each cell tells how much of its edges runs each way, and blocks of cells are brought to one length, so that light
    and contrast do not matter.

    Args:
        image_size: side that images are stretched to.
        channels: 1 or 3; of colours each pixel takes the channel of the strongest edge.
        cell: side of a cell in pixels.
        orientations: directions from 0 to 180 degrees.
        block: side of a block in cells.
    """

    def __init__(
        self, image_size: int, channels: int, *, cell: Small = 8, orientations: Small = 9, block: Small = 2
    ) -> None:
        self.image_size, self.channels = image_size, channels
        self.cell, self.orientations, self.block = cell, orientations, block
        num = image_size // cell - block + 1
        _check_size(image_size, cell * block, f"a block of {block} x {block} cells of {cell} pixels")
        self.dimension = num**2 * block**2 * orientations
        self.state: dict[str, np.ndarray] = {}

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """B images [H, W, C] uint8 -> [B, D] float32."""
        from skimage.feature import hog

        return np.stack(
            [
                hog(
                    resized(image, self.image_size),
                    orientations=self.orientations,
                    pixels_per_cell=(self.cell, self.cell),
                    cells_per_block=(self.block, self.block),
                    block_norm="L2-Hys",
                    channel_axis=2,
                )
                for image in images
            ]
        ).astype(np.float32)


class VisualWords:
    """How often each word of a codebook of patches occurs (Csurka et al. 2004; patches as in Coates et al. 2011).

    The words are the centres of k-means over patches of the train split, each patch first brought to zero mean and
    unit variance, so that a word is a shape and no brightness.

    Args:
        image_size: side that images are stretched to.
        channels: 1 or 3.
        words: in the codebook.
        patch: side of a patch in pixels.
        stride: pixels from a patch to the next.
        grid: squares along each side, with a histogram each.
        num_patches: so many, drawn at random, make the codebook.
    """

    CONTRAST = 10.0  # added to the variance of a patch of 0..255 (Coates et al. 2011, section 3.1): flat ones stay flat

    def __init__(
        self,
        image_size: int,
        channels: int,
        *,
        words: Annotated[int, Field(ge=2, le=4096)] = 100,
        patch: Annotated[int, Field(ge=2, le=64)] = 6,
        stride: Small = 2,
        grid: Small = 2,
        num_patches: Annotated[int, Field(ge=2, le=10**7)] = 20_000,
    ) -> None:
        self.image_size, self.channels = image_size, channels
        self.words, self.patch, self.stride, self.grid, self.num_patches = words, patch, stride, grid, num_patches
        _check_size(image_size, patch + (grid - 1) * stride, f"a grid of {grid} with patches of {patch} pixels")
        self.dimension = grid**2 * words
        self.state: dict[str, np.ndarray] = {}

    def learn(self, images: Iterable[np.ndarray], seed: int) -> None:
        """Makes the codebook, `state["codebook"]` [words, patch * patch * C].

        Args:
            images: [H, W, C] uint8, of the train split.
            seed: of the draw of patches and of the first centres.

        Raises:
            PipelineError: there are fewer unlike patches than words.
        """
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        rng = np.random.default_rng(seed)
        lots, patches = np.zeros(0), np.zeros((0, self.patch**2 * self.channels), np.float32)
        for image in images:  # each patch draws a lot, and those with the least stay: memory holds no others
            more = self._patches(image).reshape(-1, patches.shape[1])
            lots, patches = np.append(lots, rng.random(len(more))), np.concatenate([patches, more])
            if len(lots) > 2 * self.num_patches:
                kept = np.sort(np.argpartition(lots, self.num_patches)[: self.num_patches])
                lots, patches = lots[kept], patches[kept]
        patches = patches[np.sort(np.argsort(lots, kind="stable")[: self.num_patches])]
        if len(np.unique(patches, axis=0)) < self.words:
            raise PipelineError(f"visual_words: fewer unlike patches than {self.words} words; fix: fewer words")
        with threadpool_limits(1):  # more threads add up in another order
            means: Any = KMeans(self.words, n_init=1, max_iter=50, random_state=seed).fit(patches)
        self.state = {"codebook": means.cluster_centers_.astype(np.float32)}

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """B images [H, W, C] uint8 -> [B, D] float32, shares of the words among the patches of each square."""
        codebook = self.state["codebook"]
        half_squares = (codebook**2).sum(1) / 2
        found = []
        for image in images:
            patches = self._patches(image)
            words = (half_squares - patches @ codebook.T).argmin(
                -1
            )  # the nearest centre; |patch|^2 is the same for all
            found.append(pooled(words, self.words, self.grid))
        return np.stack(found)

    def _patches(self, image: np.ndarray) -> np.ndarray:
        """[rows, columns, patch * patch * C] float32 of one image, each of zero mean and about unit variance."""
        pixels = resized(image, self.image_size)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (self.patch, self.patch), (0, 1))
        windows = windows[:: self.stride, :: self.stride].transpose(0, 1, 3, 4, 2)
        flat = windows.reshape(*windows.shape[:2], -1).astype(np.float32)
        flat = flat - flat.mean(-1, keepdims=True)
        return flat / np.sqrt(flat.var(-1, keepdims=True) + self.CONTRAST)


BACKBONES: dict[str, Any] = {"colour_histogram": ColourHistogram, "hog": Hog, "visual_words": VisualWords}


def pooled(cells: np.ndarray, num: int, grid: int) -> np.ndarray:
    """The share of each value in each square of a map.

    >>> pooled(np.array([[0, 2], [2, 2]]), 3, 1).tolist()
    [0.25, 0.0, 0.75]

    Args:
        cells: [H, W] in 0..num-1.
        num: of values.
        grid: squares along each side; where they do not divide the map, they differ by a row or column.

    Returns:
        [grid * grid * num] float32, square by square in rows.
    """
    squares = [part for row in np.array_split(cells, grid) for part in np.array_split(row, grid, axis=1)]
    counts = [np.bincount(square.ravel(), minlength=num) / square.size for square in squares]
    return np.concatenate(counts).astype(np.float32)


def _check_size(image_size: int, least: int, what: str) -> None:
    if image_size < least:
        raise ParamsError(f"image_size {image_size}: smaller than {what}; fix: image_size of at least {least}")
