"""SEC1 point encoding, refused."""

from fastecdsa import refuse


class SEC1Encoder:
    """Both directions refuse."""

    @staticmethod
    def encode_public_key(*args: object, **kwargs: object) -> bytes:
        """Refuse to encode."""
        refuse("encoding.sec1.SEC1Encoder.encode_public_key")

    @staticmethod
    def decode_public_key(*args: object, **kwargs: object) -> object:
        """Refuse to decode."""
        refuse("encoding.sec1.SEC1Encoder.decode_public_key")
