"""Sessions of a stock libp2p peer (its own Noise, its own Yamux) with a node: garbage, then lies, then floods.

Rule: whatever the node does to a session ends the session and nothing else; what was sent is counted.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TProtocol
from libp2p.identity.identify.pb.identify_pb2 import Identify
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as Noise
from libp2p.tools.anyio_service import background_trio_service
from libp2p.utils.varint import read_varint_prefixed_bytes
from multiaddr import Multiaddr

from dimnode.errors import PeerFault
from dimnode.p2p.frames import read_task_frame
from dimnode.p2p.gossip import TOPICS
from dimnode.records.envelope import SigningKey
from dimnode.records.ids import PeerId
from dimnode.wire import END, FrameDecoder, pack_frame, unpack_body

from .brute import Brute, serve_poison
from .garbage import BITSWAP, BLOB, IDENTIFY, INFO, JOB, KAD, MESHSUB, MODEL, OURS, PING, TASK, THEIRS, frame, own_frame
from .liar import Liar

SESSION_SECONDS: Final = 5.0
_STREAM_SECONDS: Final = 2.0
Plan = Callable[[Any, Liar], Awaitable[None]]
_HANDSHAKE_SECONDS: Final = 20.0


class Stranger:
    """Attacks one address, session after session, each under a new key."""

    def __init__(self, address: str, target: PeerId, models: list[bytes], chance: random.Random) -> None:
        self._info = info_from_p2p_addr(Multiaddr(address))
        self._target, self._models, self._chance = target, models, chance
        self.sent: Counter[str] = Counter()
        self.brute = Brute(chance, self._info.peer_id, self.sent)
        self.protocols: tuple[str, ...] = ()
        self._keys: dict[str, bytes] = {}

    async def run(self) -> None:
        """Session after session, until cancelled."""
        plans = (self.talk_garbage, self.lie, self.flood, self.gossip, self.trade, *self.brute.plans)
        weights = (5, 4, 1, 2, 3, *([1] * len(self.brute.plans)))
        while True:
            await self.try_session(self._chance.choices(plans, weights)[0])

    async def hold_sockets(self) -> None:
        """Half-open sockets, again and again, until cancelled."""
        while True:
            await self.brute.half_open(self._info.addrs[0])
            await trio.sleep(1.0)

    async def try_session(self, plan: Plan) -> None:
        """One session, however it ends."""
        try:
            await self.session(plan)
        except Exception as error:  # a stock host may fail in many ways when it is cut off
            self.sent[f"session ended by {_innermost(error)}"] += 1

    async def session(self, plan: Plan) -> None:
        """Connect under a new key and carry out a plan."""
        name = plan.__name__
        seed = self._keys.get(name) or self._chance.randbytes(32)
        # Who has the larger id and no link is disconnected: mere garbage would come to an end too soon.
        while plan != self.lie and SigningKey.from_seed(seed).peer > self._target:
            seed = self._chance.randbytes(32)
        liar = Liar(self._chance, SigningKey.from_seed(seed), self._target, self._models)
        key_pair = create_new_key_pair(seed)
        noise = Noise(libp2p_keypair=key_pair, noise_privkey=create_noise_key_pair().private_key)
        host: Any = new_host(key_pair=key_pair, sec_opt={NOISE: noise}, muxer_preference="YAMUX")
        for protocol, handler in self._handlers(liar).items():
            host.set_stream_handler(TProtocol(protocol), handler)
        async with host.run(listen_addrs=[]):
            try:
                with trio.fail_after(_HANDSHAKE_SECONDS):
                    await host.connect(self._info)
                if not self.protocols:
                    self.protocols = await self._discover(host)
            except Exception:
                # Brutes keep their key until nobody answers it any more; everybody else comes back as somebody else.
                self.sent["connections refused"] += 1
                self._keys.pop(name, None)
                raise
            self.sent["sessions"] += 1
            if plan in self.brute.plans:
                self._keys[name] = seed
            with trio.move_on_after(SESSION_SECONDS):
                await plan(host, liar)

    # ---- plans

    async def talk_garbage(self, host: Any, liar: Liar) -> None:
        """Malformed, cut off, endless and random frames on every protocol."""
        every = [each for each in self.protocols if each != BITSWAP]  # who opens that may open nothing else
        while True:
            await self._talk(host, self._chance.choice((*every, *OURS, MESHSUB, MESHSUB, KAD, KAD)))

    async def trade(self, host: Any, liar: Liar) -> None:
        """The same on bitswap, as a peer that speaks nothing of ours."""
        while True:
            await self._talk(host, BITSWAP)

    async def _talk(self, host: Any, protocol: str) -> None:
        with trio.move_on_after(_STREAM_SECONDS):
            stream = await self._open(host, protocol)
            try:
                for _ in range(self._chance.randrange(1, 6)):
                    await self._write(stream, frame(self._chance, protocol), protocol)
                await (stream.reset() if self._chance.randrange(2) else stream.close())
            except StreamError:
                self.sent["streams reset by the node"] += 1

    async def lie(self, host: Any, liar: Liar) -> None:
        """A link as it should be, on which nothing is true; jobs of our own beside it."""
        async with trio.open_nursery() as nursery:
            if liar.key.peer < self._target:  # else the node opens the streams, and our handlers lie
                task = await self._open(host, TASK)
                ping = await self._open(host, PING)
                nursery.start_soon(self._ping, ping)
                nursery.start_soon(self._task_stream, task, liar)
            while True:
                with trio.move_on_after(_STREAM_SECONDS):
                    ask = self._chance.choice((self._ask_for_a_job, self._ask_for_a_job, self._ask_about_a_model))
                    await ask(host, liar)

    async def _ask_for_a_job(self, host: Any, liar: Liar) -> None:
        await self._ask(await self._open(host, JOB), liar.job_request(), "job")

    async def _ask_about_a_model(self, host: Any, liar: Liar) -> None:
        await self._ask(await self._open(host, MODEL), liar.model_question(), "question about a model")

    async def _ask(self, stream: Any, question: bytes, what: str) -> None:
        try:
            await self._write(stream, question, what)
            await stream.read(100)
            self.sent[f"{what} answered"] += 1
            await stream.close()
        except StreamError:
            self.sent[f"{what} refused by a reset"] += 1

    async def flood(self, host: Any, liar: Liar) -> None:
        """Hundreds of streams that begin a large frame each and never finish it."""
        begun = (2 * 1024 * 1024).to_bytes(4, "big") + bytes(1024 * 1024)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(self._begin, await self._open(host, JOB), begun)
            await trio.sleep_forever()

    async def gossip(self, host: Any, liar: Liar) -> None:
        """Announcements under a good gossip signature, whatever they say."""
        router = GossipSub([PROTOCOL_ID_V11], 6, 4, 12, heartbeat_interval=1, spam_protection_enabled=False)
        pubsub = Pubsub(host, router)
        async with background_trio_service(pubsub), background_trio_service(router):
            await pubsub.wait_until_ready()
            for topic in TOPICS:
                await pubsub.subscribe(topic)
            await host.disconnect(self._info.peer_id)  # pubsub only knows connections that were made after it
            await host.connect(self._info)
            while True:
                topic = self._chance.choice(TOPICS)
                await pubsub.publish(topic, liar.announcement(topic))
                self.sent["announcement"] += 1
                await trio.sleep(0.02)

    async def _begin(self, stream: Any, begun: bytes) -> None:
        try:
            await self._write(stream, begun, "large frames begun")
        except StreamError:
            self.sent["large frames refused"] += 1

    # ---- what the node opens with us

    def _handlers(self, liar: Liar) -> dict[str, Callable[[Any], Awaitable[None]]]:
        async def task(stream: Any) -> None:
            await self._quietly(self._task_stream, stream, liar)

        async def ping(stream: Any) -> None:
            await self._quietly(self._echo, stream)

        async def tell(stream: Any) -> None:
            await self._quietly(self._introduce, stream, liar)

        async def blob(stream: Any) -> None:
            await self._quietly(self._serve_blob, stream, liar)

        async def poison(stream: Any) -> None:
            await self._quietly(serve_poison, self._chance, bytes(self._target), stream, self.sent)

        async def model(stream: Any) -> None:
            await self._quietly(self._write, stream, own_frame(self._chance, MODEL), MODEL)

        async def hoard(stream: Any) -> None:
            if self._chance.randrange(2):
                await self._quietly(stream.read, 100)
            await trio.sleep(_STREAM_SECONDS)

        return {TASK: task, PING: ping, INFO: tell, BLOB: blob, MODEL: model, KAD: poison, BITSWAP: hoard}

    async def _quietly(self, act: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await act(*arguments)
        except Exception as error:  # an exception in a handler ends a stock host
            self.sent[f"handler ended by {_innermost(error)}"] += 1

    async def _task_stream(self, stream: Any, liar: Liar) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer_leases, stream, liar)
            try:
                while True:
                    if self._chance.randrange(300):
                        await self._write(stream, liar.scheme(), "scheme")
                    else:
                        await self._write(stream, own_frame(self._chance, TASK), TASK)
                    await trio.sleep(self._chance.choice((0, 0, 0.01)))
            finally:
                nursery.cancel_scope.cancel()

    async def _answer_leases(self, stream: Any, liar: Liar) -> None:
        decoder = FrameDecoder()
        while True:
            for body in decoder.feed(await stream.read(65536)):
                try:
                    said = read_task_frame(body)
                except PeerFault:
                    continue
                self.sent[f"heard {said.what}"] += 1
                if said.what == "lease" and (reply := liar.reply(said)):
                    await self._write(stream, reply, "reply")

    async def _introduce(self, stream: Any, liar: Liar) -> None:
        for envelope in liar.advert():
            await self._write(stream, pack_frame(envelope), "advert")
        if self._chance.randrange(6):
            await self._write(stream, END, "advert")
        else:
            await self._write(stream, own_frame(self._chance, INFO), INFO)

    async def _serve_blob(self, stream: Any, liar: Liar) -> None:
        asked = unpack_body((await stream.read(4096))[4:])
        blob = liar.blobs.get(asked, b"nothing")
        match self._chance.randrange(4):
            case 0:
                for _ in range(20):
                    await self._write(stream, pack_frame(bytes(256 * 1024)), "blob")
            case 1:
                await self._write(stream, own_frame(self._chance, INFO), BLOB)
            case _:
                await self._write(stream, pack_frame(blob) + END, "blob")

    async def _echo(self, stream: Any) -> None:
        while True:
            await stream.write(await stream.read(32))

    async def _ping(self, stream: Any) -> None:
        while True:
            await stream.write(bytes(32))
            await stream.read(32)
            await trio.sleep(0.5)

    # ---- parts

    async def _discover(self, host: Any) -> tuple[str, ...]:
        """Every protocol that the node says it speaks."""
        stream = await self._open(host, IDENTIFY)
        packed = await read_varint_prefixed_bytes(stream)
        said = Identify()
        said.ParseFromString(packed)
        await stream.close()
        missing = {*OURS, *THEIRS} - set(said.protocols)
        assert not missing, f"the node no longer speaks {missing}"
        return tuple(said.protocols)

    async def _open(self, host: Any, protocol: str) -> Any:
        return await host.new_stream(self._info.peer_id, [TProtocol(protocol)])

    async def _write(self, stream: Any, chunk: bytes, what: str) -> None:
        await stream.write(chunk)
        self.sent[what] += 1


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return type(error).__name__
