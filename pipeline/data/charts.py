"""Rows of a table as pictures, so that every stage that shows or decodes images has something true to show."""

import numpy as np

HEIGHT, BAR = 48, 4  # pixels: of a chart, and the width of a bar
INK = 64


def chart(features: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """A bar for each of D properties, as high as it lies between its least and greatest value.

    Args:
        features: [D].
        low: [D], drawn as no bar; values below are too.
        high: [D], drawn as a full bar; values above are too.

    Returns:
        [HEIGHT, BAR * D, 1] uint8.
    """
    share = np.clip((features - low) / np.where(high > low, high - low, 1), 0, 1)
    tops = np.repeat(HEIGHT - np.round(share * HEIGHT), BAR)
    return np.where(np.arange(HEIGHT)[:, None] >= tops, INK, 255).astype(np.uint8)[..., None]
