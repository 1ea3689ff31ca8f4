"""GossipSub for small signed announcements: heartbeats and adverts, never jobs, tokens or tensors.

Rule: nothing is delivered that is not signed by its source, within the size limit and the source's rate, and accepted
by the validator. Deliveries that cannot be taken at once are dropped: gossip repeats itself.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11

from dimnode.limits import HostLimits, PeerLimits
from dimnode.p2p.host.hardening import SafeGossipSub, SafePubsub

log = logging.getLogger(__name__)

OnGossip = Callable[[str, bytes, bytes], None]
ValidateGossip = Callable[[str, bytes, bytes], bool]


class RateLimit:
    """A token bucket per source; forgets the source that was silent longest. Pure: the clock is an argument."""

    def __init__(self, per_second: float, burst: float, sources_max: int) -> None:
        self._per_second = per_second
        self._burst = burst
        self._sources_max = sources_max
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def allow(self, source: bytes, now_seconds: float) -> bool:
        """Take one token of `source` if there is one."""
        tokens, since = self._buckets.pop(source, (self._burst, now_seconds))
        tokens = min(self._burst, tokens + (now_seconds - since) * self._per_second)
        allowed = tokens >= 1.0
        self._buckets[source] = (tokens - 1.0 if allowed else tokens, now_seconds)
        if len(self._buckets) > self._sources_max:
            self._buckets.popitem(last=False)
        return allowed


class Gossip:
    """The subscriptions of one host. `services` are run by the host, `deliver` is a task per topic."""

    def __init__(
        self,
        host: Any,
        topics: Sequence[str],
        on_gossip: OnGossip | None,
        validate: ValidateGossip | None,
        limits: HostLimits,
        peer_limits: PeerLimits,
    ) -> None:
        self._own = host.get_id()
        self._topics = tuple(topics)
        self._on_gossip = on_gossip
        self._validate = validate
        self._message_bytes_max = peer_limits.gossip_message_bytes_max
        per_second, burst = limits.gossip_messages_per_second_max, limits.gossip_messages_burst_max
        self._per_source = RateLimit(per_second, burst, limits.gossip_sources_max)
        # A forwarder carries the messages of many sources, hence the wider bucket.
        self._per_forwarder = RateLimit(4 * per_second, 4 * burst, limits.gossip_sources_max)
        self.router = SafeGossipSub(
            protocols=[PROTOCOL_ID_V11],
            degree=limits.gossip_degree,
            degree_low=limits.gossip_degree - 2,
            degree_high=2 * limits.gossip_degree,
            heartbeat_interval=limits.gossip_heartbeat_seconds,
            prune_back_off=5,
            spam_protection_enabled=False,  # it counts and drops our own messages as well
        )
        self.pubsub = SafePubsub(
            host,
            self.router,
            admit=self._admit,
            strict_signing=True,
            max_inbound_rpc_size=limits.gossip_rpc_bytes_max,
            allowed_topics=frozenset(topics),
        )
        self.services = (self.pubsub, self.router)

    async def subscribe(self, nursery: trio.Nursery) -> None:
        """Join all topics and start delivering, in `nursery`."""
        await self.pubsub.wait_until_ready()
        for topic in self._topics:
            self.pubsub.set_topic_validator(topic, self._validator(topic), is_async_validator=False)
            subscription = await self.pubsub.subscribe(topic)
            nursery.start_soon(self._deliver, topic, subscription, name=f"gossip {topic}")

    def _admit(self, forwarder: ID) -> bool:
        return forwarder == self._own or self._per_forwarder.allow(forwarder.to_bytes(), trio.current_time())

    def _validator(self, topic: str) -> Callable[[ID, Any], bool]:
        def validate(forwarder: ID, message: Any) -> bool:
            if len(message.data) > self._message_bytes_max or list(message.topicIDs) != [topic]:
                return False
            if forwarder == self._own:
                return True
            source = bytes(message.from_id)
            if not self._per_source.allow(source, trio.current_time()):
                return False
            return self._ask_validator(topic, source, bytes(message.data))

        return validate

    def _ask_validator(self, topic: str, source: bytes, data: bytes) -> bool:
        if self._validate is None:
            return True
        try:
            return self._validate(topic, source, data)
        except Exception:  # boundary: above is libp2p, which would take our bug for the sender's
            log.exception("validate_gossip failed")
            return False

    async def _deliver(self, topic: str, subscription: Any) -> None:
        """Drain the subscription: libp2p keeps 32 messages and then drops."""
        own = self._own.to_bytes()
        while True:
            message = await subscription.get()
            source = bytes(message.from_id)
            if source != own and self._on_gossip is not None:
                self._on_gossip(topic, source, bytes(message.data))

    async def publish(self, topic: str, data: bytes) -> None:
        """Sign and send. Raises `ValueError` for another topic or too many bytes (our own bug)."""
        if topic not in self._topics:
            raise ValueError(f"not subscribed to {topic}")
        if len(data) > self._message_bytes_max:
            raise ValueError(f"gossip of {len(data)} bytes, at most {self._message_bytes_max}")
        await self.pubsub.publish(topic, data)

    def neighbours(self, topic: str) -> list[bytes]:
        """Return the peers in our mesh for `topic`."""
        return [peer.to_bytes() for peer in self.router.mesh.get(topic, ())]
