"""libp2p's pubsub and gossipsub, made fit for strangers.

Stock pubsub ends the process over one malformed message, checks signatures without any limit, counts a bad signature
against nobody, and has a validator that can only say yes or no. Here one method judges a message in the order of what
the checks cost, before anything is passed on or delivered.

Rule: nothing is relayed that was not judged; a message is held against who forwarded it only when no honest peer would
have forwarded it.

Source: https://github.com/libp2p/specs/blob/master/pubsub/gossipsub/gossipsub-v1.1.md (scores, thresholds, validators).
"""

import logging
from collections.abc import Callable
from typing import Any

import trio
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.pubsub.score import ScoreParams, TopicScoreParams
from libp2p.pubsub.validators import signature_validator

from dimnode.p2p.conduct import Judgement

log = logging.getLogger(__name__)


Judge = Callable[[Any, Any], Judgement]


class SafePubsub(Pubsub):
    """Pubsub whose way of taking messages in is ours; the rest (streams, subscriptions, queues) is stock."""

    def __init__(self, *args: Any, judge: Judge, accept: Callable[[Any], None], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._judge = judge
        self._accept = accept
        self._told_on: dict[Any, Any] = {}  # the stream on which a peer says what it subscribes to; the newest

    async def stream_handler(self, stream: Any) -> None:
        """Listen to a peer until its stream ends; what it subscribed to there holds as long as its connection."""
        peer_id = stream.muxed_conn.peer_id
        self._told_on[peer_id] = stream
        try:
            await super().stream_handler(stream)
        finally:
            if self._told_on.get(peer_id) is stream:
                del self._told_on[peer_id]
                if not self._peer_is_connected(peer_id):
                    self._forget_all_subscriptions(peer_id)

    def _forget_all_subscriptions(self, peer_id: Any) -> None:
        """Stock does this, too, when only our own stream to the peer broke, that of an older connection, say.

        The peer, whose stream is whole, never says again what it wants: it was heard, and never heard us any more.
        """
        told_on = self._told_on.get(peer_id)
        if told_on is None or told_on.muxed_conn.is_closed:
            super()._forget_all_subscriptions(peer_id)

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        """Take a message in: judge it, remember it, deliver it, pass it on."""
        try:
            ours = msg_forwarder == self.my_id
            judgement = Judgement.ACCEPT if ours else self._judge(msg_forwarder, msg)
            if judgement in (Judgement.INVALID, Judgement.FORGED):
                for topic in msg.topicIDs[:1]:
                    self.router.scorer.on_invalid_message(msg_forwarder, topic)
            if judgement is not Judgement.ACCEPT:
                return
            self._mark_msg_seen(msg)
            if not ours:
                self.router.scorer.on_first_delivery(msg_forwarder, msg.topicIDs[0])
                self._accept(msg)
            await self.router.publish(msg_forwarder, msg)
        except Exception as error:  # noqa: BLE001 boundary: bytes of a stranger, parsed and relayed by libp2p
            log.debug("gossip dropped: %r", error)

    def was_seen(self, message: Any) -> bool:
        """Whether a message with this author and number was accepted in the last two minutes."""
        return bool(self._is_msg_seen(message))

    @staticmethod
    def signed(message: Any) -> bool:
        """Whether the author that the message names signed it."""
        try:
            return bool(signature_validator(message))
        except Exception:  # noqa: BLE001 boundary: libp2p raises for keys of many shapes
            return False


class SafeGossipSub(GossipSub):
    """GossipSub that goes on after a failure and looks at few control messages, about its own topics, per frame."""

    def __init__(self, *args: Any, topics: frozenset[str], controls_max: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._topics = topics
        self._controls_max = controls_max

    async def heartbeat(self) -> None:
        """Run until cancelled; stock 0.8.1 ends the process with its first failure."""
        while True:
            try:
                await super().heartbeat()
            except Exception as error:  # noqa: BLE001 boundary: the mesh is made of what strangers sent
                log.warning("gossip heartbeat failed: %r", error)
                await trio.sleep(self.heartbeat_interval)

    async def handle_rpc(self, rpc: Any, sender_peer_id: Any) -> None:
        """Stock keeps a list per topic that a peer makes up, and answers each of thousands of entries."""
        control = rpc.control
        for entries in (control.ihave, control.graft, control.prune):
            kept = [entry for entry in entries[: self._controls_max] if entry.topicID in self._topics]
            if len(kept) < len(entries):
                del entries[:]
                entries.extend(kept)
        for entries in (control.iwant, control.idontwant):
            del entries[self._controls_max :]
        await super().handle_rpc(rpc, sender_peer_id)

    def _check_equivocation(self, msg: Any) -> bool:
        """Stock keeps every message for this; a second one of the same number is not accepted in the first place."""
        return True


def score_params() -> ScoreParams:
    """How gossipsub scores a peer here; what it leads to is decided by `Gossip` and the ledger of conduct.

    Invalid messages (P4; in this library a positive weight is subtracted, and counts up to the cap only) weigh ten
    each and are half forgotten after 14 heartbeats; first deliveries (P2) make up for one of them at most. Misbehaviour
    in the protocol itself (P5: floods of IHAVE, IWANT, GRAFT) counts beyond a tolerance. Many peers behind one address
    (P7) are the gate's business.
    """
    return ScoreParams(
        p2_first_message_deliveries=TopicScoreParams(weight=0.5, cap=20.0, decay=0.95),
        p4_invalid_messages=TopicScoreParams(weight=10.0, cap=100.0, decay=0.95),
        p5_behavior_penalty_weight=1.0,
        p5_behavior_penalty_decay=0.9,
        p5_behavior_penalty_threshold=20.0,
        gossip_threshold=-20.0,
        publish_threshold=-40.0,
        graylist_threshold=-60.0,
        accept_px_threshold=1000.0,  # nobody's hints about other peers are taken over gossip
    )
