"""GossipSub for small signed announcements: heartbeats and adverts, never jobs, tokens or tensors.

Rule: nothing is delivered or passed on that is not signed by its source, within the size limit and everybody's rates,
and accepted by the validator: the cheapest check first. What is beyond a rate is dropped: gossip repeats itself. What
we publish ourselves waits for its turn instead of being dropped by others.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11

from dimnode.limits import HostLimits, PeerLimits
from dimnode.p2p.conduct import Judgement, Offence
from dimnode.p2p.host.gate import Gate
from dimnode.p2p.host.pubsub import SafeGossipSub, SafePubsub, score_params
from dimnode.p2p.host.services import RateLimit
from dimnode.p2p.ticks import next_tick

log = logging.getLogger(__name__)

OnGossip = Callable[[str, bytes, bytes], None]
ValidateGossip = Callable[[str, bytes, bytes], Judgement | bool]

_OFFENCES: Final = {
    Judgement.INVALID: Offence.INVALID,
    Judgement.FORGED: Offence.FORGED,
    Judgement.REPLAYED: Offence.REPLAYED,
}
_EVERYBODY: Final = b"*"


class Gossip:
    """The subscriptions of one host. `services` are run by the host, with one task that looks at the scores."""

    def __init__(
        self,
        host: Any,
        topics: Sequence[str],
        on_gossip: OnGossip | None,
        validate: ValidateGossip | None,
        limits: HostLimits,
        peer_limits: PeerLimits,
        gate: Gate,
    ) -> None:
        self._own = host.get_id()
        self._topics = tuple(topics)
        self._on_gossip = on_gossip
        self._validate = validate
        self._gate = gate
        self._limits = limits
        self._message_bytes_max = peer_limits.gossip_message_bytes_max
        self.counts: Counter[tuple[str, str]] = Counter()  # by topic and what became of a message
        per_second, burst, most = (
            limits.gossip_messages_per_second_max,
            limits.gossip_messages_burst_max,
            limits.gossip_sources_max,
        )
        self._per_source = RateLimit(per_second, burst, most)
        # Slower than others allow, because what leaves evenly arrives unevenly.
        self._own_rate = RateLimit(0.75 * per_second, 0.5 * burst, most)
        # A forwarder carries the messages of many sources, hence the wider bucket.
        self._per_forwarder = RateLimit(limits.gossip_forwarded_per_second_max, limits.gossip_forwarded_burst_max, most)
        self._in_all = RateLimit(limits.gossip_total_per_second_max, limits.gossip_total_burst_max, 1)
        self.router = SafeGossipSub(
            protocols=[PROTOCOL_ID_V11],
            degree=limits.gossip_degree,
            degree_low=limits.gossip_degree - 2,
            degree_high=2 * limits.gossip_degree,
            heartbeat_interval=limits.gossip_heartbeat_seconds,
            prune_back_off=5,
            spam_protection_enabled=False,  # it counts and drops our own messages as well
            # A swarm with fewer peers than the degree counts as unwell, and stock then beats every 30 or 60 s: so
            # much larger is the cache of recent messages, which a newcomer is sent whole and takes for a flood.
            adaptive_gossip_enabled=False,
            score_params=score_params(),
            topics=frozenset(topics),
            controls_max=limits.gossip_controls_max,
        )
        self.pubsub = SafePubsub(
            host,
            self.router,
            judge=self._judge,
            accept=self._accept,
            strict_signing=True,
            max_inbound_rpc_size=limits.gossip_rpc_bytes_max,
            allowed_topics=frozenset(topics),
        )
        self.services = (self.pubsub, self.router)

    async def subscribe(self, nursery: trio.Nursery) -> None:
        """Join all topics and watch the scores, in `nursery`."""
        await self.pubsub.wait_until_ready()
        for topic in self._topics:
            await self.pubsub.subscribe(topic)
        if self._topics:
            nursery.start_soon(self._watch_scores, name="gossip scores")

    # A message comes in

    def _judge(self, forwarder: ID, message: Any) -> Judgement:
        """All checks, the cheapest first. What breaks the rules is held against who forwarded it."""
        peer = forwarder.to_bytes()
        topics = list(message.topicIDs)
        if len(topics) != 1 or topics[0] not in self._topics or len(message.data) > self._message_bytes_max:
            return self._judged(peer, "", Judgement.INVALID)
        topic, now = topics[0], trio.current_time()
        if reason := self._reason_to_drop(peer, topic, message, now):
            self.counts[topic, reason] += 1
            return Judgement.IGNORE
        if not self.pubsub.signed(message):
            return self._judged(peer, topic, Judgement.FORGED)
        if self._gate.muted(peer):  # what breaks the rules counts all the same
            self.counts[topic, "dropped-muted"] += 1
            return Judgement.IGNORE
        source = bytes(message.from_id)
        # Only now is it certain whose message it is: nobody can use up another's share of the rate.
        if not self._per_source.allow((source, topic), now):
            self.counts[topic, "dropped-source-rate"] += 1
            if source == peer:
                self._gate.offend(peer, Offence.GOSSIP_FLOOD)
            return Judgement.IGNORE
        judgement = self._ask_validator(topic, source, bytes(message.data))
        if judgement is Judgement.REPLAYED and source == peer:  # it signs anew: its clock was set back
            judgement = Judgement.IGNORE
        return self._judged(peer, topic, judgement)

    def _reason_to_drop(self, peer: bytes, topic: str, message: Any, now: float) -> str:
        """Why a message is not even looked at; "" when it is."""
        if not self._per_forwarder.allow((peer, topic), now):
            self._gate.offend(peer, Offence.GOSSIP_FLOOD)
            return "dropped-forwarder-rate"
        if self.pubsub.was_seen(message):
            return "duplicate"
        if bytes(message.from_id) == self._own.to_bytes():
            return "own"  # from before our restart, perhaps
        if not self.router.scorer.allow_publish(ID(peer), [topic]):
            return "dropped-low-score"
        return "" if self._in_all.allow(_EVERYBODY, now) else "dropped-total-rate"

    def _judged(self, peer: bytes, topic: str, judgement: Judgement) -> Judgement:
        self.counts[topic, judgement.value] += 1
        if (offence := _OFFENCES.get(judgement)) is not None:
            self._gate.offend(peer, offence)
        return judgement

    def _ask_validator(self, topic: str, source: bytes, data: bytes) -> Judgement:
        if self._validate is None:
            return Judgement.ACCEPT
        try:
            said = self._validate(topic, source, data)
        except Exception:  # boundary: above is libp2p, which would take our bug for the sender's
            log.exception("validate_gossip failed")
            return Judgement.IGNORE
        if isinstance(said, Judgement):
            return said
        return Judgement.ACCEPT if said else Judgement.INVALID

    def _accept(self, message: Any) -> None:
        if self._on_gossip is not None:
            self._on_gossip(message.topicIDs[0], bytes(message.from_id), bytes(message.data))

    # What becomes of peers

    async def _watch_scores(self) -> None:
        """libp2p only stops listening to a peer below the graylist threshold; here that is an offence."""
        topics = list(self._topics)
        while True:
            await next_tick(self._limits.gossip_heartbeat_seconds)
            for peer in list(self.pubsub.peers):
                if self.router.scorer.is_graylisted(peer, topics):
                    self._gate.offend(peer.to_bytes(), Offence.LOW_SCORE)

    def score(self, peer: bytes) -> float:
        """What gossipsub thinks of a peer, over all topics."""
        return float(self.router.scorer.score(ID(peer), list(self._topics)))

    # A message goes out

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign and send, as soon as our own rate allows: beyond it other nodes would drop it and nobody would know.

        Raises `ValueError` for another topic or too many bytes (our own bug). A cancel while waiting sends nothing.
        """
        if topic not in self._topics:
            raise ValueError(f"not subscribed to {topic}")
        if len(data) > self._message_bytes_max:
            raise ValueError(f"gossip of {len(data)} bytes, at most {self._message_bytes_max}")
        if wait_seconds := self._own_rate.reserve(topic, trio.current_time()):
            self.counts[topic, "published-late"] += 1
            await trio.sleep(wait_seconds)
        self.counts[topic, "published"] += 1
        if not self.pubsub.peers:  # libp2p would sign it, and an address record too, for nobody
            return
        await self.pubsub.publish(topic, data)

    def neighbours(self, topic: str) -> list[bytes]:
        """Return the peers in our mesh for `topic`."""
        return [peer.to_bytes() for peer in self.router.mesh.get(topic, ())]
