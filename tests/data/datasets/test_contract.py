"""What every source keeps to, for those of today and those to come."""

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import get_type_hints

import pytest
from pydantic import ConfigDict, TypeAdapter

from pipeline.data.download import Asset
from pipeline.data.ingest import OnError
from pipeline.errors import PipelineError
from pipeline.params import plug_ins

SOURCES = {name: importlib.import_module(f"pipeline.data.datasets.{name}") for name in plug_ins("data/datasets")}
WITH_ASSETS = {name: source for name, source in SOURCES.items() if getattr(source, "ASSETS", {})}


def options_of(source):
    return {p.name: p for p in inspect.signature(source.prepare).parameters.values() if p.kind is p.KEYWORD_ONLY}


@pytest.mark.parametrize("name", SOURCES)
def test_prepare_takes_a_folder_and_then_options_by_name(name):
    first, *others = inspect.signature(SOURCES[name].prepare).parameters.values()
    assert first.name == "folder"
    assert all(p.kind is p.KEYWORD_ONLY for p in others)
    hints = get_type_hints(SOURCES[name].prepare)
    assert hints["folder"] is Path
    assert hints["return"] is type(None)
    assert options_of(SOURCES[name])["seed"].default is inspect.Parameter.empty


@pytest.mark.parametrize("name", SOURCES)
def test_each_option_is_described(name):
    described = re.findall(r"^ {8}(\w+(?:, \w+)*):", SOURCES[name].prepare.__doc__, re.M)
    assert {key for keys in described for key in keys.split(", ")} >= {"folder", *options_of(SOURCES[name])}
    assert SOURCES[name].__doc__.strip()


@pytest.mark.parametrize("name", SOURCES)
def test_defaults_satisfy_their_own_schema(name):
    hints = get_type_hints(SOURCES[name].prepare, include_extras=True)
    for key, option in options_of(SOURCES[name]).items():
        if option.default is not option.empty:
            config = ConfigDict(strict=True, allow_inf_nan=False)  # as params.check_options has it
            TypeAdapter(hints[key], config=config).validate_json(json.dumps(option.default))
    if "on_error" in hints:
        assert hints["on_error"] == OnError
        assert options_of(SOURCES[name])["on_error"].default == "fail"


@pytest.mark.parametrize("name", WITH_ASSETS)
def test_assets_have_an_address_and_something_to_be_verified_by(name):
    for asset in WITH_ASSETS[name].ASSETS.values():
        assert isinstance(asset, Asset)
        assert "/" in asset.name, "in a folder of its source, for two sources may have files of one name"
        assert all(re.match(r"https?://[^@?]+$", url) for url in asset.urls)
        assert asset.checksum or asset.size


def test_no_two_files_share_a_place_in_the_cache():
    by_name = {}
    for source in WITH_ASSETS.values():
        for asset in source.ASSETS.values():
            assert by_name.setdefault(asset.name, asset) == asset


@pytest.mark.parametrize("name", [name for name, source in WITH_ASSETS.items() if "inputs" not in options_of(source)])
def test_offline_a_source_says_which_file_to_put_where(name, tmp_path, cache, monkeypatch):
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    with pytest.raises(PipelineError) as caught:
        SOURCES[name].prepare(tmp_path / "store", seed=0)
    message = str(caught.value)
    asset = next(a for a in WITH_ASSETS[name].ASSETS.values() if str(cache / "files" / a.name) in message)
    assert asset.urls[0] in message
    assert (asset.checksum or str(asset.size)) in message
    assert "PIPELINE_OFFLINE is set; fix: download" in message
    assert "\n" not in message
    assert not (tmp_path / "store").exists()
