"""Downloads from an HTTP server on loopback that can cut, change, refuse and forget."""

import dataclasses
import errno
import hashlib
import json
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from regnet_backbones.cli import main
from regnet_backbones.errors import UserError
from regnet_backbones.weights import catalogue, download, resolvable, resolve, transfer
from regnet_backbones.weights.sidecar import read_sidecar, sidecar_of

NAME = "regnety_4gf.pycls_in1k"
BODY = bytes(range(256)) * 4096  # 1 MiB
OTHER = BODY[::-1]
FOUR = 4 * transfer.CHUNK


class Server(ThreadingHTTPServer):
    """Serves ``body`` at every path; the attributes say how it misbehaves."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.etag, self.modified = BODY, '"one"', "Wed, 01 Jan 2025 00:00:00 GMT"
        self.cut_at: int | None = None  # bytes to send before hanging up
        self.status = 200
        self.ranges = True
        self.honours_if_range = True
        self.delay = 0.0
        self.sent: list[tuple[str, int]] = []  # what was asked for, and how many bytes went out

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/dir/model.pyth"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range", "")
        time.sleep(server.delay)
        if server.status != 200:
            self.send_error(server.status)
            return
        unchanged = self.headers.get("If-Range") in (None, server.etag, server.modified)
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        partial = bool(asked) and server.ranges and (unchanged or not server.honours_if_range)
        start = start if partial else 0
        payload = server.body[start:]
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(payload)))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        for header, value in (("ETag", server.etag), ("Last-Modified", server.modified)):
            if value:
                self.send_header(header, value)
        self.end_headers()
        payload = payload[: server.cut_at]
        self.wfile.write(payload)
        server.sent.append((asked, len(payload)))
        if server.cut_at is not None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(download.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def row(server, cache, monkeypatch):
    """A row of the catalogue whose file the server has."""
    checksum = f"sha256:{hashlib.sha256(BODY).hexdigest()[:8]}"
    row = dataclasses.replace(catalogue.find(NAME), url=server.url, checksum=checksum)
    rows = catalogue.catalogue() | {NAME: row}
    monkeypatch.setattr(catalogue, "catalogue", lambda: rows)
    return row


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")}


def cut(server, at: int) -> str:
    server.cut_at = at
    with pytest.raises(UserError) as caught:
        download.get(NAME)
    server.cut_at = None
    return str(caught.value)


def test_whole_download_with_progress(row, server, cache):
    seen = []
    path = download.get(NAME, progress=lambda done, total: seen.append((done, total)))
    assert path == cache / NAME / "model.pyth"
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert files(cache) == {"model.pyth", "model.pyth.json"}
    assert download.get(NAME) == path
    assert len(server.sent) == 1, "the second call found the file"


def test_what_is_known_travels_with_the_file(row, cache):
    path, meta = resolve(f"regnet://{NAME}")
    assert meta.name == NAME
    assert meta.arch == "RegNetY-4.0GF"
    assert meta.channel_order == "BGR"
    assert meta.pixel_mean == (103.53, 116.28, 123.675)
    assert meta.sha256 == hashlib.sha256(BODY).hexdigest()
    assert meta.source == row.url
    assert resolve(path) == (path, meta), "the file's own path says the same"
    path.write_bytes(OTHER)
    assert resolve(path) == (path, None), "another file under that name does not"


def test_a_cut_download_continues(row, server, cache):
    message = cut(server, FOUR)
    assert message.startswith("the connection was cut after 262144 of 1048576 bytes")
    assert message.endswith("run the same again to continue")
    assert not (cache / NAME / "model.pyth").exists()
    assert download.get(NAME).read_bytes() == BODY
    assert server.sent[1] == ("bytes=262144-", len(BODY) - FOUR)
    assert files(cache) == {"model.pyth", "model.pyth.json"}


def test_cut_twice(row, server):
    cut(server, FOUR)
    assert f"after {2 * FOUR} of" in cut(server, FOUR)
    assert download.get(NAME).read_bytes() == BODY
    assert [size for _, size in server.sent] == [FOUR, FOUR, len(BODY) - 2 * FOUR]


@pytest.mark.parametrize("honours_if_range", [True, False])
@pytest.mark.parametrize("validator", ["etag", "modified", "weak"])
def test_a_file_that_changed_between_tries_is_not_mixed(row, server, honours_if_range, validator):
    """Even with a server that ignores the condition and sends the new file's end."""
    server.honours_if_range = honours_if_range
    if validator == "modified":
        server.etag = ""
    if validator == "weak":
        server.etag = 'W/"one"'
    cut(server, FOUR)
    server.body = OTHER
    server.etag, server.modified = (server.etag.replace("one", "two"), "Thu, 02 Jan 2025 00:00:00 GMT")
    other = dataclasses.replace(row, checksum="")
    assert download.get(other).read_bytes() == OTHER


@pytest.mark.parametrize("fault", ["no ranges", "no validator"])
def test_where_nothing_can_be_continued_it_starts_again(row, server, fault):
    server.ranges = fault != "no ranges"
    if fault == "no validator":
        server.etag = server.modified = ""
    cut(server, FOUR)
    assert download.get(NAME).read_bytes() == BODY
    assert server.sent[-1][1] == len(BODY)


def test_a_complete_part_needs_no_request(row, server, monkeypatch):
    """A process that was killed between the last byte and the new name."""

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_verified", killed)
        with pytest.raises(KeyboardInterrupt):
            download.get(NAME)
    assert download.get(NAME).read_bytes() == BODY
    assert len(server.sent) == 1


def test_wrong_checksum_removes_the_file(row, server, cache):
    server.body = OTHER
    with pytest.raises(UserError, match=r"its sha256 begins [0-9a-f]{8}, not [0-9a-f]{8}; it was removed"):
        download.get(NAME)
    assert files(cache) == set()


def test_md5_prefix(row, server):
    right = dataclasses.replace(row, checksum=f"md5:{hashlib.md5(BODY).hexdigest()[:6]}")
    assert download.get(right).exists()
    wrong = dataclasses.replace(row, name="other", checksum="md5:000000")
    with pytest.raises(UserError, match=r"its md5 begins [0-9a-f]{6}, not 000000"):
        download.get(wrong)


@pytest.mark.parametrize(
    ("status", "said"), [(404, r"there is nothing at .* \(404\)"), (503, "answers 503 Service Unavailable for")]
)
def test_refusals(row, server, cache, status, said):
    server.status = status
    with pytest.raises(UserError, match=said):
        download.get(NAME)
    assert files(cache) == set()


def test_no_network(row, cache):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    unreachable = dataclasses.replace(row, url=f"http://127.0.0.1:{port}/model.pyth")
    with pytest.raises(UserError, match=f"127.0.0.1:{port} cannot be reached.*bring the file to") as caught:
        download.get(unreachable)
    assert str(cache / NAME / "model.pyth'") in str(caught.value)


def test_a_file_brought_by_hand_is_checked_and_described(row, server, cache):
    path = download.place(row)
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    with pytest.raises(UserError, match=r"not the published one.*remove '"):
        download.get(NAME)
    assert path.exists(), "what a person brought is theirs to remove"
    path.write_bytes(BODY)
    assert resolve(f"regnet://{NAME}")[1].channel_order == "BGR"
    assert server.sent == []


def test_full_disk_keeps_what_is_there(row, server, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(transfer, "_receive", full)
    with pytest.raises(UserError, match=r"the disk of '.*' is full; free some space or choose another folder"):
        download.get(NAME)


def test_cache_folder_that_cannot_be(row, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to"):
        download.get(NAME, tmp_path / "file")


def test_cache_folder_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.delenv(download.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert download.cache_folder() == tmp_path / "regnet_backbones" / "weights"
    monkeypatch.setenv(download.CACHE_VARIABLE, "/somewhere")
    assert download.cache_folder() == Path("/somewhere")
    assert download.cache_folder("/else") == Path("/else")


def test_two_processes_download_once(server, cache):
    server.delay = 0.5
    code = f"from regnet_backbones.weights import resolve; print(resolve({server.url!r})[0])"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BODY
    assert len(server.sent) == 1


def test_what_can_be_resolved(row, server, cache, tmp_path):
    assert resolve(tmp_path / "own.pth") == (tmp_path / "own.pth", None)
    path, meta = resolve(server.url + "?x=1")
    assert path.read_bytes() == BODY
    assert meta is None, "nobody described that address"
    assert json.loads(sidecar_of(path).read_text())["source"] == server.url + "?x=1"
    assert resolve(server.url)[1].name == NAME, "the catalogue's own address is known"
    for spec in ("regnet://x", "https://x/y", "open-mmlab://regnetx_400mf"):
        assert resolvable(spec)
    for spec in ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "open-mmlab://resnet50_caffe", "a/b.pth", ""):
        assert not resolvable(spec)
    with pytest.raises(UserError, match="no published weight called 'detectron2://x'"):
        resolve("detectron2://x")


def test_command_gets_and_copies(row, cache, tmp_path):
    out = tmp_path / "here.pyth"
    result = CliRunner().invoke(main, ["weights", "get", NAME, "--out", str(out)])
    assert result.exit_code == 0
    assert result.stdout.strip() == str(out)
    assert out.read_bytes() == BODY
    assert read_sidecar(out).channel_order == "BGR"
    result = CliRunner().invoke(main, ["weights", "get", NAME, "--cache-dir", str(tmp_path / "other")])
    assert result.stdout.strip() == str(tmp_path / "other" / NAME / "model.pyth")


def test_command_tells_errors_in_one_sentence(row, server, tmp_path):
    server.status = 404
    result = CliRunner().invoke(main, ["weights", "get", NAME])
    assert result.exit_code == 1
    assert result.stderr.strip().startswith("error: there is nothing at http://127.0.0.1")
    server.status = 200
    result = CliRunner().invoke(main, ["weights", "get", NAME, "--out", str(tmp_path / "none" / "x.pyth")])
    assert result.exit_code == 1
    assert "x.pyth' cannot be written: No such file" in result.stderr
