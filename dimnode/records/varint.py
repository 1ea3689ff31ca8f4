"""Unsigned varints, as protobuf and multiformats write them: seven bits a byte, the lowest first.

Reading them is each format's own affair, for each refuses other forms.
Pure: no I/O, no clock.
"""


def varint(number: int) -> bytes:
    """The shortest form of a number that is not negative."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
