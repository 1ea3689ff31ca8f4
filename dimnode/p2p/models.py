"""Questions about models between nodes: `/dim/model/1`.

Rule: the asked decides by what is shown: a manifest is anybody's, a permit to fetch stands on the asker's own grant or
on a lease that names it as executor, and a wish to have a model kept is only a wish.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import trio

from dimnode.errors import PeerFault, Refused
from dimnode.limits import LIMITS
from dimnode.p2p.host.host import Host
from dimnode.p2p.host.streams import DialFailed, Stream
from dimnode.p2p.introduction import one_frame
from dimnode.records.ids import RECORD_ID_BYTES, RECORD_PREFIX, PeerId, RecordId
from dimnode.wire import END, pack_frame, unpack_body

MODEL: Final = "/dim/model/1"
WORDS: Final = ("manifest", "permit", "warm")
_QUESTION_BYTES_MAX: Final = 4 * LIMITS.records.record_bytes_max
_ENVELOPES_MAX: Final = 8
_FIELDS_MAX: Final = 8
_TEXT_CHARACTERS: Final = 256
_OPERATORS: Final = "its operator decides: fetch_models and fetch_model_gb_max in the settings there"

Judge = Callable[[PeerId, str, RecordId, Sequence[bytes]], Awaitable[bytes]]
"""Asker, word, model and what is shown; the answer's bytes (of `manifest` an envelope). Raises `Refused`."""


def serve_models(judge: Judge) -> Callable[[Stream], Awaitable[None]]:
    """A stream handler: one question, one answer: ["ok", bytes] or ["refused", code, text], then the end."""

    async def serve(stream: Stream) -> None:
        with trio.fail_after(LIMITS.host.negotiate_seconds_max):
            word, model, shown = _question(await one_frame(stream, _QUESTION_BYTES_MAX))
            answer: list[Any]
            try:
                answer = ["ok", await judge(PeerId(stream.peer), word, model, shown)]
            except Refused as no:
                said = no.complaint
                answer = ["refused", said.code, f"{said.what}: {said.cause}"[:_TEXT_CHARACTERS]]
            await stream.write(pack_frame(answer) + END)

    return serve


async def ask_about_model(host: Host, peer: PeerId, word: str, model: RecordId, shown: Sequence[bytes] = ()) -> bytes:
    """What a connected peer answers. Raises `Refused` with its code, `PeerFault`, `DialFailed`, `StreamLost`."""
    with trio.move_on_after(LIMITS.host.negotiate_seconds_max) as deadline:
        stream = await host.open_stream(peer, MODEL)
        try:
            await stream.write(pack_frame([word, bytes(model), list(shown)]))
            answer = unpack_body(await one_frame(stream, _QUESTION_BYTES_MAX), LIMITS.wire.peer_frame_containers_max)
        finally:
            await stream.reset()
        match answer:
            case ["ok", bytes(said), *_]:
                return said
            case ["refused", str(code), str(text), *_] if len(code) <= 32 and len(text) <= _TEXT_CHARACTERS:
                hint = _OPERATORS if code in ("E-models-31", "E-models-32") else "dim models show MODEL"
                raise Refused(code, "the peer says no", text, hint)
            case _:
                raise PeerFault("model: answer")
    assert deadline.cancelled_caught
    raise DialFailed("no answer about a model")


def _question(body: bytes) -> tuple[str, RecordId, list[bytes]]:
    row = unpack_body(body, LIMITS.wire.peer_frame_containers_max)
    if type(row) is not list or not 3 <= len(row) <= _FIELDS_MAX:
        raise PeerFault("model: question")
    word, model, shown = row[:3]
    if type(word) is not str or type(model) is not bytes or type(shown) is not list or len(shown) > _ENVELOPES_MAX:
        raise PeerFault("model: question")
    if len(model) != RECORD_ID_BYTES or not model.startswith(RECORD_PREFIX):
        raise PeerFault("model: id")
    if any(type(entry) is not bytes for entry in shown):
        raise PeerFault("model: what is shown")
    return word, RecordId(model), shown
