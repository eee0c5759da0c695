"""Colours of the classes of a label map."""

from __future__ import annotations


def label_colours(num: int) -> list[str]:
    """The first colours of PASCAL VOC's palette, which serves where a source defines none: all differ, 0 is black.

    The bits of a value, from the lowest on, go to the three channels, from their highest on; source:
    VOClabelcolormap.m of the development kit.

    >>> label_colours(3)
    ['#000000', '#800000', '#008000']
    """
    colours = []
    for value in range(num):
        channels = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                channels[channel] |= (value >> (3 * bit + channel) & 1) << (7 - bit)
        colours.append("#{:02x}{:02x}{:02x}".format(*channels))
    return colours
