"""TLS for the engine: a context that offers HTTP/2 and uses renewed certificates from the next handshake on."""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from service.security.tls import CertificateFiles, Certificates


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """A TLS context that asks ``files`` at each handshake whether there are newer certificates."""
    shown = files.current
    context = current = _context(shown)

    def renew(connection: ssl.SSLObject, _name: str | None, _context_of_listener: ssl.SSLContext) -> None:
        nonlocal shown, current
        files.renewed()
        if files.current is not shown:  # another listener may have noticed the change
            shown = files.current
            current = _context(shown)
        # OpenSSL calls this before it chooses a certificate, whether or not the client sends a server name.
        connection.context = current

    context.sni_callback = renew
    return context


def is_resumed(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection resumed a TLS session, so that its peer has shown no certificate."""
    connection = transport.get_extra_info("ssl_object")
    return connection is not None and bool(connection.session_reused)


def _context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    with _as_file(certificates.chain) as chain, _as_file(certificates.key) as key:
        context.load_cert_chain(chain, key)
    if certificates.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        # The client shows no certificate in a resumed session, and the roots may have changed meanwhile.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_verify_locations(cadata=certificates.client_ca.decode("ascii"))
    return context


@contextmanager
def _as_file(contents: bytes) -> Iterator[str]:
    """The path of an in-memory file with these bytes: `ssl` reads keys from files only."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, contents)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
