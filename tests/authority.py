"""A certificate authority that no system knows, for TLS on loopback."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


class Authority:
    """A certificate authority in a folder, and the server contexts it vouches for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test CA")])
        certificate = self._sign(self.name, self.key, None)
        self.file = str(folder / "ca.pem")
        Path(self.file).write_bytes(certificate)

    def server(
        self,
        *names: str,
        newest: ssl.TLSVersion | None = None,
        days: tuple[int, int] = (-1, 1),
    ) -> ssl.SSLContext:
        """Return the context of a server with these names or addresses.

        Its certificate is valid between these `days` from now.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "server")])
        pem = self.folder / f"{names[0]}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        pem.write_bytes(private + self._sign(subject, key, names, days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        if newest is not None:
            context.maximum_version = newest
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: tuple[str, ...] | None,
        days: tuple[int, int] = (-9, 9),
    ) -> bytes:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder(
                self.name, subject, key.public_key(), 1 if names is None else 2
            )
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(names is None, None), critical=True)
        )
        if names is not None:
            known: list[x509.GeneralName] = [
                x509.IPAddress(ip_address(name))
                if name[0].isdigit()
                else x509.DNSName(name)
                for name in names
            ]
            builder = builder.add_extension(
                x509.SubjectAlternativeName(known), critical=False
            )
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)
