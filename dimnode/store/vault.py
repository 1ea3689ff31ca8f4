"""Bytes in memory by id, counted by holder.

Rule: whoever makes an event that names bytes holds them once for it, and the engine's `Release` lets go of them once.
Two jobs with equal outputs hold the same bytes twice. After all jobs have ended the vault is empty.
"""


class Vault:
    """Envelopes by record id and blobs by CID; both are names of content, so one map serves."""

    __slots__ = ("_contents", "_holders", "bytes_held")

    def __init__(self) -> None:
        self._contents: dict[bytes, bytes] = {}
        self._holders: dict[bytes, int] = {}
        self.bytes_held = 0

    def __len__(self) -> int:
        return len(self._contents)

    def hold(self, identity: bytes, content: bytes) -> None:
        """Keep `content` once more."""
        holders = self._holders.get(identity, 0)
        self._holders[identity] = holders + 1
        if not holders:
            self._contents[identity] = content
            self.bytes_held += len(content)

    def get(self, identity: bytes) -> bytes | None:
        """The bytes, if anybody holds them."""
        return self._contents.get(identity)

    def release(self, identity: bytes) -> None:
        """Let go once; releasing what nobody holds is our own bug."""
        holders = self._holders[identity]
        if holders > 1:
            self._holders[identity] = holders - 1
            return
        del self._holders[identity]
        self.bytes_held -= len(self._contents.pop(identity))
