from pipeline.data.colours import label_colours


def test_colours_are_the_development_kits():
    # VOClabelcolormap: background, aeroplane, bicycle, bird, ..., tvmonitor, ..., the cream of the borders
    colours = label_colours(256)
    assert colours[:4] == ["#000000", "#800000", "#008000", "#808000"]
    assert colours[20] == "#004080"
    assert colours[255] == "#e0e0c0"


def test_colours_all_differ():
    assert len(set(label_colours(256))) == 256
