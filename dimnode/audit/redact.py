"""A receipt without what it speaks about: openings and blobs dropped, every signature kept.

Rule: the same records in the same order; what can no longer be opened can no longer be guessed either.
Pure: no I/O, no clock.
"""

from dimnode.records.receipt import pack_receipt, parse_receipt


def redact(raw: bytes) -> bytes:
    """The receipt without openings and blobs. Raises `PeerFault` when the file does not parse."""
    receipt = parse_receipt(raw)
    return pack_receipt(receipt.root, receipt.records.values(), (), ())
