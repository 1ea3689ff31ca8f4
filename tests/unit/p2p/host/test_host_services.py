"""What an exception says about a peer, and how fast libp2p's own protocols are read."""

import pytest
import trio
from google.protobuf.message import DecodeError
from libp2p.io.exceptions import MessageTooLarge

from dimnode.errors import PeerFault
from dimnode.limits import LIMITS
from dimnode.p2p.conduct import Offence
from dimnode.p2p.host.services import RateLimit, ServiceStreams, offence_of
from dimnode.p2p.host.streams import StreamEnded, StreamLost


@pytest.mark.parametrize(
    ("error", "ours", "expected"),
    [
        (PeerFault("info: question"), True, Offence.MALFORMED),
        (PeerFault("frame too long"), True, Offence.OVERSIZE),
        (PeerFault("blob: too large"), True, Offence.OVERSIZE),
        (MessageTooLarge("x"), False, Offence.OVERSIZE),
        (trio.TooSlowError(), True, Offence.SLOW),
        (DecodeError("x"), False, Offence.MALFORMED),
        (KeyError("x"), True, Offence.HANDLER),
        (StreamEnded(), True, None),
        (StreamLost(), True, None),
        (ExceptionGroup("a nursery's", [PeerFault("task frame: word")]), True, Offence.MALFORMED),
    ],
)
def test_an_exception_out_of_a_handler_names_the_offence(
    error: Exception, ours: bool, expected: Offence | None
) -> None:
    assert offence_of(error, ours) is expected


def test_a_reserved_token_is_waited_for_in_turn() -> None:
    rate = RateLimit(per_second=2.0, burst=2.0, sources_max=10)
    waits = [rate.reserve("a", 0.0) for _ in range(5)]
    assert waits == [0.0, 0.0, 0.5, 1.0, 1.5]
    assert rate.reserve("b", 0.0) == 0.0
    assert rate.reserve("a", 2.0) == 0.0


def test_a_peer_has_few_streams_of_each_service_and_gets_its_places_back() -> None:
    services = ServiceStreams(LIMITS.host)
    most = LIMITS.host.service_streams_per_peer_max
    assert [services.enter(b"peer", "/meshsub/1.1.0") for _ in range(most + 1)] == [True] * most + [False]
    assert services.enter(b"peer", "/ipfs/ping/1.0.0")
    assert services.enter(b"other", "/meshsub/1.1.0")
    services.leave(b"peer", "/meshsub/1.1.0")
    assert services.enter(b"peer", "/meshsub/1.1.0")
