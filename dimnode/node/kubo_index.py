"""The index of a publisher's public models, as a blob that anybody with an IPFS daemon can read.

Rule: the same models make the same bytes, so an index that did not change needs no new name. It is a table of contents
and proves nothing: what counts is the signed manifest that each entry leads to.
Pure: no I/O, no clock.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from dimnode.records.ids import Cid, PeerId, RecordId, blob_cid, cid_text, peer_text
from dimnode.records.manifest import Manifest

INDEX_BYTES_MAX: Final = 1024 * 1024
"""One leaf: its CID is that of its bytes."""


def index_of(publisher: PeerId, net: RecordId, models: Iterable[tuple[Manifest, bytes]]) -> bytes:
    """JSON of these models (with their envelopes), the newest first; the oldest are left out when there is no room."""
    head: dict[str, Any] = {"index": 1, "publisher": peer_text(publisher), "swarm": cid_text(net)}
    entries: list[Mapping[str, Any]] = []
    room_bytes = INDEX_BYTES_MAX - len(_encoded({**head, "models": []}))
    for manifest, envelope in sorted(models, key=lambda pair: (-pair[0].at_ms, pair[0].id)):
        entry = _entry(manifest, blob_cid(envelope))
        room_bytes -= len(_encoded(entry)) + 1
        if room_bytes < 0:
            break
        entries.append(entry)
    return _encoded({**head, "models": entries})


def _entry(manifest: Manifest, envelope: Cid) -> Mapping[str, Any]:
    return {
        "name": manifest.name,
        "version": manifest.version,
        "manifest": cid_text(manifest.id),
        "envelope": cid_text(envelope),
        "format": manifest.format,
        "licence": manifest.licence,
        "files": [
            {"path": file.path, "root": cid_text(file.root), "bytes": file.size_bytes} for file in manifest.files
        ],
    }


def _encoded(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
