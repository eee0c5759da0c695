import zipfile
from dataclasses import replace

import pytest

from pipeline.data import download, inputs
from pipeline.data.inputs import folder_of, shown_address
from pipeline.errors import ParamsError, PipelineError


@pytest.fixture
def shelf(cache, monkeypatch):
    """A file system in memory, allowed as an address; the cache is the test's own."""
    import fsspec

    monkeypatch.setitem(inputs.SCHEMES, "memory", "nothing")
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pipe({"/shelf/images/a.png": b"a", "/shelf/labels.csv": b"file,class\n"})
    yield files
    files.store.clear()


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_folder_is_taken_where_it_is(tmp_path):
    assert folder_of(str(tmp_path)) == tmp_path


def test_what_dvc_keeps_elsewhere_is_to_be_pulled(tmp_path):
    (tmp_path / "mine.dvc").write_text("outs: []\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"mine: not on this machine, DVC keeps it; fix: dvc pull .*mine$"):
        folder_of(str(tmp_path / "mine"))


def test_nothing_there_and_a_file_that_is_no_archive_are_told(tmp_path):
    with pytest.raises(PipelineError, match=r"mine: no such folder; fix"):
        folder_of(str(tmp_path / "mine"))
    (tmp_path / "a.csv").write_text("file,class\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"a.csv: a file and no archive; fix: write the folder"):
        folder_of(str(tmp_path / "a.csv"))


def test_an_archive_is_unpacked_and_its_one_folder_is_the_data(tmp_path, cache):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("data/images/a.png", b"a")
        archive.writestr("__MACOSX/x", b"")
    folder = folder_of(str(tmp_path / "data.zip"))
    assert contents(folder) == {"images/a.png": b"a"}
    assert folder.is_relative_to(cache)


def test_an_address_is_copied_into_the_cache_once(shelf, cache, monkeypatch):
    folder = folder_of("memory://shelf")
    assert contents(folder) == {"images/a.png": b"a", "labels.csv": b"file,class\n"}
    assert folder.is_relative_to(cache)
    monkeypatch.setattr(type(shelf), "get_file", lambda *_: pytest.fail("copied again"))
    assert folder_of("memory://shelf/") == folder


def test_other_content_at_the_address_is_copied_anew(shelf):
    first = folder_of("memory://shelf")
    shelf.pipe({"/shelf/images/a.png": b"longer"})
    second = folder_of("memory://shelf")
    assert second != first
    assert contents(second)["images/a.png"] == b"longer"


def test_an_archive_at_an_address_is_unpacked(shelf, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a/b.txt", b"b")
    shelf.pipe({"/data.zip": (tmp_path / "data.zip").read_bytes()})
    assert contents(folder_of("memory://data.zip")) == {"b.txt": b"b"}


def test_an_archive_at_an_https_address_goes_through_the_verified_download(tmp_path, cache, monkeypatch):
    import fsspec

    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("a/b.txt", b"b")
    asked = []

    class Files:
        def info(self, place):
            return {"size": 1, "ETag": "x"}

    def fetch(asset):
        asked.append(asset)
        return tmp_path / "data.zip"

    monkeypatch.setattr(fsspec, "url_to_fs", lambda address: (Files(), address))
    monkeypatch.setattr(download, "fetch", fetch)
    assert contents(folder_of("https://example.org/data.zip?key=secret")) == {"b.txt": b"b"}
    (asset,) = asked
    assert asset.urls == ("https://example.org/data.zip?key=secret",)
    assert asset.name.startswith("inputs/")
    assert "secret" not in asset.name


def test_a_folder_at_an_https_address_comes_through_no_http(tmp_path, cache, monkeypatch):
    """Each file by our own download, which refuses a redirect to http: test_download.py."""
    import fsspec

    root = "https://example.org/shelf"
    asked = []

    class Files:
        def find(self, place, detail):
            return {f"{root}/images/a.png": {"size": 1}, f"{root}/labels.csv": {"size": 2}}

        def get_file(self, *_):
            pytest.fail("copied by fsspec, which follows any redirect")

    def fetch(asset):
        asked.append(asset.urls)
        path = tmp_path / "received"
        path.write_bytes(asset.name.encode()[-3:])
        return path

    monkeypatch.setattr(fsspec, "url_to_fs", lambda address: (Files(), address))
    monkeypatch.setattr(download, "fetch", fetch)
    folder = folder_of(f"{root}/")
    assert contents(folder) == {"images/a.png": b"png", "labels.csv": b"csv"}
    assert asked == [(f"{root}/images/a.png",), (f"{root}/labels.csv",)]
    assert folder_of(root) == folder
    assert len(asked) == 2


def test_names_of_a_folder_at_an_https_address_are_decoded_and_links_that_sort_are_no_files(server, cache, monkeypatch):
    """As fsspec finds them in a page of Apache's."""
    import fsspec

    root = "https://example.org/shelf"
    served = {"my%20b%C3%A4r.png": b"a", "labels/100%25.txt": b"c", "labels/nothing.txt": b""}
    addresses = {f"{root}/{name}": server.serve(name, content) for name, content in served.items()}
    links = ["", "?C=N;O=D", "labels/?C=M;O=A"]

    class Files:
        def find(self, place, detail):
            return {name: {"size": None} for name in [*(f"{root}/{link}" for link in links), *addresses]}

    fetch = download.fetch
    monkeypatch.setattr(fsspec, "url_to_fs", lambda address: (Files(), address))
    monkeypatch.setattr(download, "fetch", lambda asset: fetch(replace(asset, urls=(addresses[asset.urls[0]],))))
    expected = {"my bär.png": b"a", "labels/100%.txt": b"c", "labels/nothing.txt": b""}
    assert contents(folder_of(root)) == expected


def test_a_copy_that_is_cut_leaves_nothing(shelf, cache, monkeypatch):
    def cut(self, remote, local, **options):
        with open(local, "wb") as file:
            file.write(b"ha")
        raise OSError("the line is cut")

    monkeypatch.setattr(type(shelf), "get_file", cut)
    with pytest.raises(PipelineError, match=r"memory://shelf: OSError \(the line is cut\); fix"):
        folder_of("memory://shelf")
    assert all(path.name.endswith(".lock") for path in (cache / "inputs").iterdir())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://example.org/a.zip", "inputs: http:// is not read (http://example.org/a.zip); fix: write https"),
        ("file:///etc", "inputs: file:// is not read (file:///etc); fix: one of https, s3"),
    ],
)
def test_other_schemes_are_refused(address, message):
    with pytest.raises(ParamsError) as caught:
        folder_of(address)
    assert str(caught.value).startswith(message)


def test_an_empty_address_is_told(shelf):
    with pytest.raises(PipelineError, match=r"^memory://nowhere: no file there; fix|FileNotFoundError"):
        folder_of("memory://nowhere")


def test_offline_an_address_is_not_asked(shelf, monkeypatch):
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    with pytest.raises(PipelineError, match=r"^memory://shelf: PIPELINE_OFFLINE is set; fix: copy it"):
        folder_of("memory://shelf")


def test_a_missing_package_is_named(monkeypatch):
    import fsspec

    def missing(address):
        raise ImportError("s3fs")

    monkeypatch.setattr(fsspec, "url_to_fs", missing)
    with pytest.raises(ParamsError, match=r"fix: pip install s3fs$"):
        folder_of("s3://bucket/data")


def test_what_a_report_shows_holds_no_secret_and_no_path_of_a_machine():
    assert shown_address("https://me:secret@example.org/a?token=1") == "https://example.org/a?..."
    assert shown_address("/home/me/data") == "data"
    assert shown_address("../shared/data") == "data"
    assert shown_address("mine/data") == "mine/data"
