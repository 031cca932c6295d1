"""TLS for the engine: a context that offers HTTP/2 and takes over renewed certificates at the next handshake."""

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
    """For connections from now on; asks ``files`` at each handshake whether there are newer certificates."""
    shown = files.current
    context = current = _context(shown)

    def renew(connection: ssl.SSLObject, _name: str | None, _context_of_listener: ssl.SSLContext) -> None:
        nonlocal shown, current
        files.renewed()
        if files.current is not shown:  # another listener may have been the one to notice
            shown = files.current
            current = _context(shown)
        # OpenSSL asks here before it chooses a certificate, whether or not the client names a server.
        connection.context = current

    context.sni_callback = renew
    return context


def is_resumed(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection goes on with a session from before, so that its peer has shown no certificate."""
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
        # A session that is taken up again shows no certificate, and the roots may have changed since it did.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        context.load_verify_locations(cadata=certificates.client_ca.decode("ascii"))
    return context


@contextmanager
def _as_file(contents: bytes) -> Iterator[str]:
    """A file with these bytes that lives in memory: `ssl` reads keys from files alone."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, contents)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
