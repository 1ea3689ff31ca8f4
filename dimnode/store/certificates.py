"""A certificate of this machine's own, for development: TLS that a client must be told to trust.

Rule: it says who nobody vouches for; the private key is written 0600 before the certificate that it belongs to.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from dimnode.posix.files import NO_LINK

TLS_FOLDER: Final = "tls"
_DAYS: Final = 397  # what browsers accept at most
_EARLIER: Final = datetime.timedelta(hours=1)  # clocks differ


def make_self_signed(home: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """Certificate and private key in PEM, for these host names and addresses. Raises `OSError`."""
    folder = home / TLS_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "dimnode, self-signed")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(text) for text in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    key_path = _written(folder / "private-key.pem", key.private_bytes(pem, form, plain))
    return _written(folder / "certificate.pem", certificate.public_bytes(pem)), key_path


def check_pair(certificate: Path, private_key: Path) -> datetime.datetime:
    """When the certificate ends. Raises `ValueError` or `OSError` when the two do not belong together."""
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    try:
        key = serialization.load_pem_private_key(private_key.read_bytes(), None)
    except TypeError as error:  # what the library raises for a key with a password
        raise ValueError(str(error)) from None
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    der = serialization.Encoding.DER
    if key.public_key().public_bytes(der, spki) != found.public_key().public_bytes(der, spki):
        raise ValueError("the private key does not belong to the certificate")
    return found.not_valid_after_utc


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _written(path: Path, content: bytes) -> Path:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_LINK, 0o600), "wb") as file:
        file.write(content)
    return path
