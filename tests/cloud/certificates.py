"""Certificates made for one test run, and what is wrong with files that should hold some."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_PEM = serialization.Encoding.PEM
_PKCS8 = serialization.PrivateFormat.PKCS8
_NOW = datetime.now(UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Where a certificate and its key are."""

    cert: Path
    key: Path


class Authority:
    """Issues certificates into a folder.

    Args:
        folder: Where the files go.

    Attributes:
        cacert: The file of its own certificate.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        own = self._certify(self._name, self._key, is_authority=True, names=())
        self.cacert = folder / f"{name}.pem"
        self.cacert.write_bytes(own.public_bytes(_PEM))

    def issue(self, name: str, *names: str, password: str = "", days: int = 1) -> Files:
        """Issue a certificate, for these host names and addresses.

        Args:
            name: Whose it is, and what the files are named by.
            names: Host names and addresses.
            password: What its key is encrypted with; "": not at all.
            days: For how long it is valid; what is over has a negative number.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._certify(_name(name), key, is_authority=False, names=names, days=days)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if password:
            encryption = serialization.BestAvailableEncryption(password.encode())
        files = Files(cert=self._folder / f"{name}.crt", key=self._folder / f"{name}.key")
        files.cert.write_bytes(certificate.public_bytes(_PEM))
        files.key.write_bytes(key.private_bytes(_PEM, _PKCS8, encryption))
        return files

    def server(self, *names: str, days: int = 1) -> ssl.SSLContext:
        """Make the TLS of a server with these names."""
        files = self.issue(names[0].replace(".", "-"), *names, days=days)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files.cert, files.key)
        return context

    def _certify(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        is_authority: bool,
        names: tuple[str, ...],
        days: int = 1,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_NOW - timedelta(days=10))
            .not_valid_after(_NOW + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if is_authority:
            usage = x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                crl_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                encipher_only=False,
                decipher_only=False,
            )
            builder = builder.add_extension(usage, critical=True)
        if names:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
