import contextlib
import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data import download
from pipeline.data.download import Asset, fetch, fetch_all, redacted
from pipeline.errors import PipelineError
from tests.data.servers import Play, Server

PROJECT = Path(__file__).parents[2]
CONTENT = np.random.default_rng(0).bytes(3_000_001)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
TAG = {"ETag": '"one"'}
HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch):
    monkeypatch.setattr(download, "BACKOFF", 0.0)


def asset(*urls, checksum=SHA256, size=None):
    return Asset("set/file.bin", tuple(urls), checksum, size)


def left_in(folder):
    """The files of the cache other than locks."""
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def test_a_file_is_received_verified_and_asked_for_once(server, cache):
    wanted = asset(server.serve("f", CONTENT), size=len(CONTENT))
    path = fetch(wanted)
    assert path == cache / "files/set/file.bin"
    assert path.read_bytes() == CONTENT
    assert fetch(wanted) == path
    assert len(server.requests) == 1
    assert left_in(cache) == ["file.bin"]


@pytest.mark.parametrize("algorithm", ["sha256", "md5", "sha1", "sha512"])
def test_each_algorithm_of_publishers_is_known(server, cache, algorithm):
    digest = hashlib.new(algorithm, CONTENT).hexdigest()
    assert fetch(asset(server.serve("f", CONTENT), checksum=f"{algorithm}:{digest}")).read_bytes() == CONTENT


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server, cache, status):
    plays = [Play(status=status), Play(status=status, headers={"Retry-After": "0"}), Play()]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_a_server_that_stays_busy_is_asked_no_more_than_the_limit(server, cache):
    url = server.serve("f", CONTENT, [Play(status=500)])
    with pytest.raises(PipelineError, match=r"file\.bin: cannot be downloaded \(.*/f: status 500 .*4 times\); fix: "):
        fetch(asset(url))
    assert len(server.requests) == download.ATTEMPTS == 4


def test_waits_double_up_to_a_limit_and_heed_retry_after(server, cache, monkeypatch):
    waits = []
    monkeypatch.setattr(download, "BACKOFF", 1.0)
    monkeypatch.setattr(download.time, "sleep", waits.append)
    wish = {"Retry-After": "9999"}
    plays = [Play(status=500), Play(status=503), Play(status=503, headers=wish), Play()]
    fetch(asset(server.serve("f", CONTENT, plays)))
    assert waits == [1, 2, 60]


@pytest.mark.parametrize("status", [404, 403, 410])
def test_a_refusal_is_not_asked_again_and_the_mirrors_follow_in_order(server, cache, status):
    urls = [server.serve(f"mirror{i}", CONTENT, [Play(status=status if i < 2 else 200)]) for i in range(4)]
    assert fetch(asset(*urls)).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["/mirror0", "/mirror1", "/mirror2"]


def test_all_mirrors_are_named_where_none_has_it(server, cache):
    with pytest.raises(PipelineError) as caught:
        fetch(asset(server.url("a"), server.url("b"), size=5))
    message = str(caught.value)
    assert re.search(r"/a: status 404 Not Found; http.*/b: status 404 Not Found", message)
    assert (
        f"download {server.url('a')} yourself ({SHA256}, 5 bytes) and put it at {cache}/files/set/file.bin" in message
    )
    assert "\n" not in message


def test_no_connection_at_all_is_one_line(cache):
    with pytest.raises(PipelineError, match=r"http://127\.0\.0\.1:9/x: no connection, 4 times"):
        fetch(asset("http://127.0.0.1:9/x"))


def test_a_server_that_says_nothing_is_given_up(server, cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (0.2, 0.2))
    url = server.serve("f", CONTENT, [Play(cut=10, stall=1.0)])
    with pytest.raises(PipelineError, match="4 times"):
        fetch(asset(url))


@pytest.mark.parametrize("headers", [TAG, {"Last-Modified": "Wed, 01 Jan 2020 00:00:00 GMT"}, {}])
def test_a_cut_download_goes_on_where_it_was(server, cache, headers):
    plays = [Play(cut=1_500_000, headers=headers), Play(headers=headers)]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-"]
    condition = next(iter(headers.values()), None)
    assert server.requests[1][1].get("If-Range") == condition


def test_cuts_are_without_limit_while_each_attempt_gets_a_mebibyte_further(server, cache):
    content = CONTENT * 5
    plays = [*(Play(cut=end) for end in range(2_000_000, 14_000_000, 2_000_000)), Play()]
    assert len(plays) > download.ATTEMPTS
    wanted = asset(server.serve("f", content, plays), checksum=f"md5:{hashlib.md5(content).hexdigest()}")
    assert fetch(wanted).read_bytes() == content


def test_a_server_that_always_cuts_at_one_place_is_given_up(server, cache):
    url = server.serve("f", CONTENT, [Play(cut=1_500_000, ranges=False)])
    with pytest.raises(PipelineError, match="the connection was cut, 4 times"):
        fetch(asset(url))
    assert not (cache / "files/set/file.bin").exists()


def test_a_server_that_ignores_range_does_not_double_the_file(server, cache):
    plays = [Play(cut=1_500_000), Play(ranges=False)]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-"]


def test_a_file_that_changed_in_between_is_received_from_the_start(server, cache):
    plays = [Play(cut=1_500_000, content=b"\1" * len(CONTENT), headers={"ETag": '"old"'}), Play(headers=TAG)]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert len(server.requests) == 2


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_a_server_that_ignores_if_range_does_not_mix_two_versions(server, cache, checksum):
    old = Play(cut=1_500_000, content=b"\1" * len(CONTENT), headers={"ETag": '"old"'})
    url = server.serve("f", CONTENT, [old, Play(headers=TAG, conditions=False)])
    assert fetch(asset(url, checksum=checksum)).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-", None]


def test_a_part_of_other_bytes_is_thrown_away_and_received_again(server, cache):
    plays = [Play(cut=1_500_000, content=b"\1" * len(CONTENT)), Play()]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-", None]


def test_a_part_from_another_mirror_is_not_resumed_under_its_tag(server, cache):
    first = server.serve("a", CONTENT, [Play(cut=1_500_000, headers=TAG), Play(status=404)])
    second = server.serve("b", CONTENT, [Play(headers={"ETag": '"two"'})])
    assert fetch(asset(first, second)).read_bytes() == CONTENT
    assert [headers.get("If-Range") for _, headers in server.requests] == [None, '"one"', None]
    assert server.ranges() == [None, "bytes=1500000-", "bytes=1500000-"]


def test_a_wrong_range_is_not_written(server, cache):
    wrong = Play(headers={"Content-Range": "bytes 7-2999999/3000001"})
    plays = [Play(cut=1_500_000), wrong, Play()]
    assert fetch(asset(server.serve("f", CONTENT, plays))).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-", None]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_part_that_is_whole_already_is_only_verified(server, cache, size):
    part = cache / "files/set/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT)
    assert fetch(asset(server.serve("f", CONTENT), size=size)).read_bytes() == CONTENT
    assert server.ranges() == ([] if size else [f"bytes={len(CONTENT)}-"])


def test_a_part_is_never_taken_for_the_file(server, cache):
    part = cache / "files/set/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    url = server.serve("f", CONTENT, [Play(status=404)])
    with pytest.raises(PipelineError, match="status 404"):
        fetch(asset(url))
    assert left_in(cache) == ["file.bin.part"]


def test_a_part_without_a_checksum_is_received_again(server, cache):
    part = cache / "files/set/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\1" * 1000)
    assert fetch(asset(server.serve("f", CONTENT), checksum="")).read_bytes() == CONTENT
    assert server.ranges() == [None]


def test_a_wrong_checksum_deletes_the_file_and_shows_both(server, cache):
    url = server.serve("f", b"other")
    got = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(PipelineError, match=rf"wrong checksum \(expected {SHA256}, got sha256:{got}\)"):
        fetch(asset(url))
    assert left_in(cache) == []


def test_a_wrong_checksum_at_one_mirror_leads_to_the_next(server, cache):
    bad, good = server.serve("bad", b"\1" * len(CONTENT)), server.serve("good", CONTENT)
    assert fetch(asset(bad, good)).read_bytes() == CONTENT


@pytest.mark.parametrize("play", [Play(), Play(length=False)])
def test_a_wrong_size_is_refused_before_it_is_received_whole(server, cache, play):
    url = server.serve("f", CONTENT, [play])
    with pytest.raises(PipelineError, match=r"(3000001 bytes, not|more than) 100\b"):
        fetch(asset(url, size=100))
    assert left_in(cache) == []


def test_a_short_file_without_a_length_is_refused(server, cache):
    url = server.serve("f", CONTENT, [Play(length=False, cut=100)])
    with pytest.raises(PipelineError, match="100 bytes, not 3000001"):
        fetch(asset(url, checksum="", size=len(CONTENT)))


@pytest.mark.parametrize("checksum", ["", SHA256])
def test_a_web_page_is_told_from_a_file(server, cache, checksum):
    url = server.serve("f", CONTENT, [Play(content=b"\r\n " + HTML)])
    with pytest.raises(PipelineError, match="/f: a web page, not the file"):
        fetch(asset(url, checksum=checksum))
    assert left_in(cache) == []


def test_a_length_that_is_not_said_is_no_fault(server, cache):
    assert fetch(asset(server.serve("f", CONTENT, [Play(length=False)]))).read_bytes() == CONTENT


def test_a_body_in_chunks_is_resumed_too(server, cache):
    plays = [Play(chunked=True, cut=1_500_000, headers=TAG), Play(chunked=True, headers=TAG)]
    assert fetch(asset(server.serve("f", CONTENT, plays), checksum="", size=len(CONTENT))).read_bytes() == CONTENT
    assert server.ranges() == [None, "bytes=1500000-"]


def test_a_part_that_nothing_vouches_for_is_received_again(server, cache):
    plays = [Play(content=b"\1" * len(CONTENT), cut=1_500_000), Play()]
    assert fetch(asset(server.serve("f", CONTENT, plays), checksum="")).read_bytes() == CONTENT
    assert server.ranges() == [None, None]


def test_an_encoding_that_was_not_asked_for_is_refused(server, cache):
    url = server.serve("f", CONTENT, [Play(headers={"Content-Encoding": "br"})])
    with pytest.raises(PipelineError, match="sent br-encoded though"):
        fetch(asset(url, checksum=""))


def redirect(target):
    return Play(status=302, headers={"Location": target})


def test_redirects_are_followed_up_to_a_limit(server, cache):
    server.serve("end", CONTENT)
    start = server.serve("start", b"", [redirect("/end")])
    assert fetch(asset(start)).read_bytes() == CONTENT
    circle = server.serve("circle", b"", [redirect("circle")])
    with pytest.raises(PipelineError, match="more than 10 redirects"):
        fetch(Asset("other", (circle,)))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A key and a certificate of 127.0.0.1 that it signs itself."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *private) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


def test_a_redirect_from_https_to_http_is_refused(server, cache, certificate, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    plain = server.serve("f", CONTENT)
    with Server(certificate) as safe:
        assert fetch(asset(safe.serve("direct", CONTENT))).read_bytes() == CONTENT
        with pytest.raises(PipelineError, match=rf"it redirects to {plain}, which is not https"):
            fetch(Asset("other", (safe.serve("f", b"", [redirect(plain)]),)))
    assert server.requests == []


def test_a_redirect_to_a_file_is_refused(server, cache):
    url = server.serve("f", b"", [redirect("file:///etc/passwd")])
    with pytest.raises(PipelineError, match="it redirects to file:///etc/passwd, which is not https"):
        fetch(asset(url, checksum=""))


def test_a_certificate_that_nobody_vouches_for_is_refused(cache, certificate):
    with Server(certificate) as safe, pytest.raises(PipelineError, match="its certificate cannot be verified"):
        fetch(asset(safe.serve("f", CONTENT)))


def test_secrets_of_an_address_are_never_printed(server, cache, capfd):
    secret = server.url("f?token=hunter2").replace("http://", "http://user:hunter1@")
    with pytest.raises(PipelineError) as caught:
        fetch(asset(secret))
    told = str(caught.value) + "".join(capfd.readouterr())
    assert "hunter" not in told
    assert f"{server.url('f')}?..." in told
    assert redacted("https://me:pw@[::1]:8443/a/b?sig=1#x") == "https://::1:8443/a/b?..."


def test_offline_a_file_in_the_cache_is_used_and_a_missing_one_is_described(server, cache, monkeypatch):
    monkeypatch.setenv("PIPELINE_OFFLINE", "1")
    wanted = asset("https://example.org/f.bin", size=len(CONTENT))
    with pytest.raises(PipelineError) as caught:
        fetch(wanted)
    place = cache / "files/set/file.bin"
    assert str(caught.value) == (
        f"{place}: not there, and PIPELINE_OFFLINE is set; fix: download https://example.org/f.bin yourself "
        f"({SHA256}, 3000001 bytes) and put it at {place}"
    )
    place.write_bytes(b"\2" * len(CONTENT))
    with pytest.raises(PipelineError, match=rf"file\.bin: wrong checksum \(expected {SHA256}, got sha256:"):
        fetch(wanted)
    assert place.exists()  # it is the user's
    place.write_bytes(CONTENT)
    assert fetch(wanted) == place


def test_offline_all_missing_files_are_told_at_once(cache, monkeypatch):
    monkeypatch.setenv("PIPELINE_OFFLINE", "yes")
    wanted = [Asset(f"set/{name}", (f"https://example.org/{name}",), size=3) for name in "abc"]
    (cache / "files/set").mkdir(parents=True)
    (cache / "files/set/b").write_bytes(b"123")
    with pytest.raises(PipelineError) as caught:
        fetch_all(wanted)
    told = [f"download https://example.org/{n} yourself (no published checksum, 3 bytes)" for n in "ac"]
    assert str(caught.value) == (
        f"{cache}: 2 files are not there, and PIPELINE_OFFLINE is set; fix: {told[0]} and put it at "
        f"{cache}/files/set/a, and {told[1]} and put it at {cache}/files/set/c"
    )
    (cache / "files/set/a").write_bytes(b"456")
    with pytest.raises(PipelineError, match="set/c: not there, and"):
        fetch_all(wanted)
    (cache / "files/set/c").write_bytes(b"789")
    assert [path.name for path in fetch_all(wanted)] == ["a", "b", "c"]


def test_a_damaged_file_of_the_cache_is_received_again(server, cache):
    wanted = asset(server.serve("f", CONTENT))
    path = fetch(wanted)
    path.write_bytes(CONTENT[:-1] + b"\0")
    assert fetch(wanted).read_bytes() == CONTENT


def test_the_cache_is_in_the_home_folder_unless_it_is_named(monkeypatch):
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert download.cache() == Path("/home/somebody/.cache/vision-pipeline")
    monkeypatch.setenv("PIPELINE_CACHE", "~/elsewhere")
    assert download.cache() == Path("/home/somebody/elsewhere")


def test_a_cache_that_cannot_be_written_is_one_line(server, cache):
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file")
    with pytest.raises(PipelineError, match=r"fix: free some space or name another folder in PIPELINE_CACHE"):
        fetch(asset(server.serve("f", CONTENT)))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a\\b", ""])
def test_an_asset_stays_inside_of_the_cache(name):
    with pytest.raises(ValueError, match="not a relative path"):
        Asset(name, ())


@pytest.mark.parametrize("checksum", ["d41d8cd9", "crc32:00000000", "md5:xyz", "md5:"])
def test_a_checksum_says_its_algorithm(checksum):
    with pytest.raises(ValueError, match="no checksum"):
        Asset("x", (), checksum)


plays = st.builds(
    Play,
    status=st.sampled_from([200, 200, 200, 200, 500]),
    cut=st.none() | st.integers(0, 5000),
    ranges=st.booleans(),
    length=st.booleans(),
    chunked=st.booleans(),
    headers=st.sampled_from([{}, TAG, {"ETag": '"other"'}, {"ETag": 'W/"weak"'}]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(plays, max_size=6), has_checksum=st.booleans())
def test_whatever_a_server_does_the_file_is_right_or_absent(
    tmp_path_factory, monkeypatch, server, script, has_checksum
):
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PIPELINE_CACHE", str(folder))
    content = CONTENT[:5000]
    url = server.serve("f", content, [*script, Play()])
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}" if has_checksum else ""
    try:
        path = fetch(asset(url, checksum=checksum, size=len(content)))
    except PipelineError:
        assert "file.bin" not in left_in(folder)
    else:
        assert path.read_bytes() == content
        assert left_in(folder) == ["file.bin"]


FETCH = """
import sys
from pipeline.data.download import Asset, fetch
fetch(Asset("set/file.bin", (sys.argv[1],), sys.argv[2]))
"""


def start(cache, code, *arguments, **options):
    environment = {**os.environ, "PIPELINE_CACHE": str(cache)}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True, **options)


def test_two_processes_download_a_file_once(server, cache):
    url = server.serve("f", CONTENT)
    server.plays["/f"] = [Play(stall=0.5)]
    processes = [start(cache, FETCH, url, SHA256) for _ in range(2)]
    for process in processes:
        assert process.wait(60) == 0, process.stderr.read()
        process.stderr.close()
    assert len(server.requests) == 1
    assert left_in(cache) == ["file.bin"]


def test_threads_that_come_second_find_the_work_done(server, cache, capfd):
    wanted = asset(server.serve("f", CONTENT, [Play(cut=0, stall=0.3), Play()]))
    threads = [threading.Thread(target=fetch, args=(wanted,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 2
    assert "file.bin: waiting for another process that makes it" in capfd.readouterr().err


def test_a_killed_download_is_resumed_by_the_next(server, cache):
    url = server.serve("f", CONTENT, [Play(cut=1_500_000, stall=30, headers=TAG), Play(headers=TAG)])
    process = start(cache, FETCH, url, SHA256)
    part = cache / "files/set/file.bin.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    received = part.stat().st_size
    assert fetch(asset(url)).read_bytes() == CONTENT
    assert server.ranges() == [None, f"bytes={received}-"]


def test_a_full_disk_is_one_line_and_the_part_is_kept(server, cache):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    url = server.serve("f", CONTENT)
    process = start(cache, FETCH, url, SHA256, preexec_fn=limit)
    error = process.communicate(timeout=60)[1]
    assert "PipelineError" in error.splitlines()[-1]
    assert "fix: free some space or name another folder in PIPELINE_CACHE" in error
    assert not (cache / "files/set/file.bin").exists()
    with contextlib.suppress(FileNotFoundError):
        assert (cache / "files/set/file.bin.part").stat().st_size <= 2_000_000
    assert fetch(asset(url)).read_bytes() == CONTENT


def test_without_a_terminal_a_transfer_is_one_line(server, cache, capfd):
    fetch(asset(server.serve("f", CONTENT)))
    captured = capfd.readouterr()
    assert captured.err == "set/file.bin: 3.0 of 3.0 MB\n"
    assert captured.out == ""
