"""TLS as a step between the socket and the parser, so that there is one path for both.

`ssl.MemoryBIO` keeps OpenSSL away from the socket: bytes are stamped when the kernel
gives them, before they are decrypted. The context is gevent's class because under
Locust's monkey patch the standard one recurses; both behave alike without the patch.
"""

import ssl
from typing import Final

import gevent.ssl

from loadstone.errors import UsageError

_RECORD: Final = 16 * 1024
"""Largest plain text of a TLS record."""


def tls_context(ca_file: str | None = None, *, verify: bool = True) -> ssl.SSLContext:
    """Build a context that trusts the system's authorities, or those in `ca_file`.

    Without `verify` it trusts anybody. Raises `UsageError` if the file cannot be used.
    """
    context: ssl.SSLContext = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif ca_file is None:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(ca_file)
        except OSError as error:  # ssl.SSLError among them
            raise UsageError(
                f"cannot use {ca_file!r} as a CA file: {error}",
                hint="it must hold certificates in PEM form",
            ) from error
    return context


class TlsLayer:
    """One side of a TLS connection between two buffers; its owner moves the bytes."""

    __slots__ = ("_incoming", "_object", "_outgoing", "closed")

    def __init__(self, context: ssl.SSLContext, server_name: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_name
        )
        self.closed = False
        """Whether the peer has said that it sends no more."""

    def __repr__(self) -> str:
        return f"<TlsLayer {self._object.version() or 'in handshake'}>"

    def shake(self, data: bytes = b"") -> bool:
        """Go on with the handshake, given the peer's bytes; return whether it is over.

        There may be bytes `to_send` either way. Raises `ssl.SSLError`.
        """
        self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def to_send(self) -> bytes:
        """Take the bytes that are waiting to be sent."""
        return self._outgoing.read()

    def encrypt(self, data: bytes) -> bytes:
        """Return what to send for `data`."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]
        return self._outgoing.read()

    def decrypt(self, data: bytes) -> bytes:
        """Return the plain text that became readable with `data`, often nothing.

        Sets `closed` at the peer's close_notify. Raises `ssl.SSLError`.
        """
        self._incoming.write(data)
        parts: list[bytes] = []
        try:
            # NOTE: asking before reading saves an exception (1 us) on nearly every
            # event.
            while self._incoming.pending or self._object.pending():
                part = self._object.read(_RECORD)
                if not part:
                    self.closed = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)
