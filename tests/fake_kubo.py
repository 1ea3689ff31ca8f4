"""A daemon with Kubo's HTTP interface, as js-ipfs 0.18.1 was seen to speak it, with faults on demand.

Answers have the same status codes, headers, JSON and framing (`add` and `dag/import` in chunks with a trailer, CIDs of
pins in base58, errors as {"Message","Code","Type"} with status 500). `interop/kubo_peer.py` runs the same adapter
against js-ipfs itself.
"""

import base64
import hashlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dimnode.records.ids import BLOB_PREFIX, TREE_PREFIX, blob_cid, cid_text, peer_text
from dimnode.records.unixfs import LEAF_BYTES, LINKS_MAX, Link, encode_node, link_of, read_node, root_of

ABSENT = "path '{}' is not pinned"


class FakeKubo:
    """Blocks, pins and keys in memory. `fault` names what goes wrong: see `_Handler`."""

    def __init__(self) -> None:
        self.blocks: dict[str, bytes] = {}
        self.pins: set[str] = set()
        self.keys: dict[str, str] = {"self": "12D3KooWAPBdLHG7DBSPX4YbZSWuoopK2p9cE6nEQWSVRThms7qB"}
        self.names: dict[str, str] = {}
        self.version: dict[str, str] = {"Version": "0.18.1", "Commit": "", "Repo": "12", "ipfs-core": "0.18.1"}
        self.fault = ""
        self.gate_after: dict[str, int] = {}
        """By operation: from which call on it waits for the gate."""
        self.asked: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.news = threading.Condition()
        self.gate = threading.Event()
        """What a slow daemon waits for."""
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.kubo = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def api(self) -> str:
        return f"/ip4/127.0.0.1/tcp/{self.port}"

    def __enter__(self) -> "FakeKubo":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def asked_for(self, what: str, times: int) -> None:
        """Block until that was asked so often."""
        with self.news:
            assert self.news.wait_for(lambda: self.asked.count(what) >= times, 60), f"{what} was not asked for"

    def put(self, raw: bytes, prefix: bytes = BLOB_PREFIX) -> str:
        """Keep a block; its CID as text."""
        name = cid_text(prefix + hashlib.sha256(raw).digest())
        self.blocks[name] = raw
        return name

    def draw(self, content: bytes, leaf_bytes: int) -> str:
        """A file as a balanced tree with leaves of this size."""
        parts = [content[at : at + leaf_bytes] for at in range(0, len(content), leaf_bytes)] or [b""]
        row = [Link(blob_cid(part), len(part), len(part)) for part in parts]
        for part in parts:
            self.put(part)
        while len(row) > 1:
            groups = [row[at : at + LINKS_MAX] for at in range(0, len(row), LINKS_MAX)]
            for group in groups:
                self.put(encode_node(group), TREE_PREFIX)
            row = [link_of(encode_node(group), group) for group in groups]
        return cid_text(row[0].cid)

    def whole(self, name: str) -> bytes:
        """The file below a root. KeyError when a block is missing."""
        raw = self.blocks[name]
        if not name.startswith("bafy"):
            return raw
        return b"".join(self.whole(cid_text(link.cid)) for link in read_node(raw))


def base58(name: str) -> str:
    """The spelling in which js-ipfs answers."""
    body = name[1:].upper()
    return "z" + peer_text(base64.b32decode(body + "=" * (-len(body) % 8)))


class _Server(ThreadingHTTPServer):
    """Clients may hang up."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError | ValueError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One request. Faults: slow, lie, cut, tree, redirect, endless, html, packed, broken-json, misname."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._json({"Message": "Method Not Allowed", "Code": 1, "Type": "error"}, 405)

    def do_POST(self) -> None:
        kubo: FakeKubo = self.server.kubo  # type: ignore[attr-defined]
        place = urlsplit(self.path)
        what = place.path.removeprefix("/api/v0/")
        said = {key: values[-1] for key, values in parse_qs(place.query).items()}
        body = b"".join(self._body())
        with kubo.news:
            kubo.asked.append(what)
            kubo.headers.append(dict(self.headers))
            kubo.news.notify_all()
            waits = kubo.asked.count(what) >= kubo.gate_after.get(what, sys.maxsize)
        if waits:
            kubo.gate.wait(120)
        fault, _, only = kubo.fault.partition(":")
        if fault and (not only or only == what):
            if fault == "slow":
                kubo.gate.wait(120)
            elif fault == "redirect":
                return self._redirect()
            elif fault == "html":
                return self._raw(b"<html><body>hello</body></html>", "text/html")
            elif fault == "broken-json":
                return self._raw(b'{"Version": ', "application/json")
            elif fault == "endless":
                return self._endless()
            elif fault == "refuse":
                return self._json({"Message": "the datastore is \x1b[31mfull", "Code": 0, "Type": "error"}, 500)
        name = "do_" + what.replace("/", "_")
        if not hasattr(self, name):
            return self._json({"Message": "Not Found", "Code": 3, "Type": "error"}, 404)
        getattr(self, name)(kubo, said, body, fault if not only or only == what else "")
        return None

    # ---- operations

    def do_version(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        self._json(kubo.version)

    def do_add(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        assert (said["cid-version"], said["raw-leaves"], said["cid-base"]) == ("1", "true", "base32")
        content = _file_of(body, self.headers["Content-Type"])
        size = 256 * 1024 if fault == "tree" else int(said["chunker"].removeprefix("size-"))
        name = kubo.draw(content, size)
        if said.get("pin") == "true":
            kubo.pins.add(name)
        self._chunks([{"Name": "bytes", "Hash": name, "Size": len(content), "Mode": "0644"}], cut=fault == "cut")

    def do_dag_import(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        car = _file_of(body, self.headers["Content-Type"])
        sections = list(_sections(car))
        root = sections[0][sections[0].index(b"\xd8\x2a\x58\x25\x00") + 5 :][:36]
        for section in sections[1:]:
            cid, raw = section[:36], section[36:]
            assert hashlib.sha256(raw).digest() == cid[4:]
            kubo.put(raw, cid[:4])
        kubo.pins.add(cid_text(root))
        self._chunks([{"Root": {"Cid": {"/": cid_text(root)}, "PinErrorMsg": ""}}], cut=fault == "cut")

    def do_cat(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        raw = kubo.whole(said["arg"]) if said["arg"] in kubo.blocks else None
        self._bytes(raw if raw is None else raw[: int(said.get("length", len(raw)))], fault)

    def do_block_get(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        self._bytes(kubo.blocks.get(said["arg"]), fault)

    def do_block_stat(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        raw = kubo.blocks.get(said["arg"])
        if raw is None:
            return self._no("Failed to get block: request timed out")
        return self._json({"Key": base58(said["arg"]), "Size": len(raw)})

    def do_block_put(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        codec = said.get("format") or said["cid-codec"]
        raw = _file_of(body, self.headers["Content-Type"])
        name = kubo.put(raw, BLOB_PREFIX if codec == "raw" else TREE_PREFIX)
        self._json(
            {"Key": "QmTmCB2nEjAxz2rPK2Cfskbt3EPMQubCa7ToDQJbCQqJu6" if fault == "misname" else name, "Size": len(raw)}
        )

    def do_pin_add(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        if said["arg"] not in kubo.blocks:
            return self._no("Failed to add pin: request timed out")
        kubo.pins.add(said["arg"])
        return self._json({"Pins": [base58(said["arg"])]})

    def do_pin_ls(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        if said["arg"] not in kubo.pins:
            return self._no(ABSENT.format(said["arg"]))
        return self._json({"Keys": {base58(said["arg"]): {"Type": "recursive"}}})

    def do_pin_rm(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        if said["arg"] not in kubo.pins:
            return self._no(f"Failed to remove pin: {said['arg']} is not pinned")
        kubo.pins.discard(said["arg"])
        return self._json({"Pins": [base58(said["arg"])]})

    def do_key_list(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        self._json({"Keys": [{"Name": name, "Id": value} for name, value in kubo.keys.items() for _ in range(2)]})

    def do_key_gen(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        if said["arg"] in kubo.keys:
            return self._no("Key name already exists")
        value = "12D3KooW" + hashlib.sha256(said["arg"].encode()).hexdigest()[:44].replace("0", "a")
        kubo.keys[said["arg"]] = value
        return self._json({"Name": said["arg"], "Id": value})

    def do_name_publish(self, kubo: FakeKubo, said: dict[str, str], body: bytes, fault: str) -> None:
        key = kubo.keys[said["key"]]
        kubo.names[key] = said["arg"]
        self._json({"Name": key, "Value": "/ipfs/other" if fault == "misname" else said["arg"]})

    # ---- framing

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline().split(b";")[0] or b"x", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _no(self, message: str) -> None:
        self._json({"Message": message, "Code": 0, "Type": "error"}, 500)

    def _json(self, value: object, status: int = 200) -> None:
        self._raw(json.dumps(value).encode(), "application/json; charset=utf-8", status)

    def _raw(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _redirect(self) -> None:
        self.send_response(307)
        self.send_header("location", self.path)
        self.send_header("content-length", "0")
        self.end_headers()

    def _bytes(self, raw: bytes | None, fault: str) -> None:
        if raw is None:
            return self._no("Failed to get block: request timed out")
        self.send_response(200)
        self.send_header("x-stream-output", "1")
        self.send_header("content-type", "application/octet-stream")
        self.send_header("content-length", str(len(raw)))
        if fault == "packed":
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        if fault == "lie":
            raw = bytes([raw[0] ^ 1]) + raw[1:]
        self.wfile.write(raw[: len(raw) // 2] if fault == "cut" else raw)
        self.close_connection = self.close_connection or fault == "cut"
        return None

    def _chunks(self, values: list[object], cut: bool) -> None:
        self.send_response(200)
        self.send_header("x-chunked-output", "1")
        self.send_header("content-type", "application/json; charset=utf-8")
        self.send_header("trailer", "X-Stream-Error")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for value in values:
            line = json.dumps(value).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
        self.wfile.write(b"" if cut else b"0\r\n\r\n")
        self.close_connection = self.close_connection or cut

    def _endless(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            while not self.server.kubo.gate.is_set():  # type: ignore[attr-defined]
                self.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        except OSError:
            self.close_connection = True


def _file_of(body: bytes, kind: str) -> bytes:
    """The one part of a multipart form."""
    mark = b"--" + kind.partition("boundary=")[2].strip('"').encode()
    part = body[body.index(mark) + len(mark) : body.rindex(mark)]
    return part[part.index(b"\r\n\r\n") + 4 : -2]


def _sections(car: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(car):
        length = shift = 0
        while True:
            byte = car[at]
            at += 1
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        yield car[at : at + length]
        at += length


def known_root(content: bytes) -> str:
    """What the daemon has to say of these bytes."""
    assert LEAF_BYTES == 1024 * 1024
    return cid_text(root_of(content))
