"""The certificates of a server: read, checked against each other, and read again when their files change.

The ssl module checks them before a transport gets them: gRPC itself accepts unusable files silently and then fails
every handshake.
"""

from __future__ import annotations

import logging
import ssl
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.config import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificates:
    """The certificates that a TLS server presents and trusts, as PEM."""

    chain: bytes
    """The server's certificate and the intermediate ones."""
    key: bytes
    client_ca: bytes | None = None
    """The roots that callers' certificates are checked against; None if callers need no certificate."""


class CertificateFiles:
    """The files behind `Certificates`. Thread-safe."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        """Read the files; raises a ConfigError that names the setting and what is wrong with its file."""
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._lock = threading.Lock()
        self._complaint = ""
        self._signature = self._look()
        self._current = self._read()

    @property
    def asks_for_client_certificates(self) -> bool:
        """Whether callers must show a certificate."""
        return self._client_ca is not None

    @property
    def current(self) -> Certificates:
        """The certificates as last read."""
        return self._current

    def renewed(self) -> Certificates | None:
        """Read the files again if they changed; return None and keep `current` if they did not or cannot be used."""
        with self._lock:
            try:
                signature = self._look()
                if signature == self._signature:
                    return None
                renewed = self._read()
            except ConfigError as error:
                # Probably only some of the files are renewed yet: the next connection checks again.
                if str(error) != self._complaint:
                    _log.error("certificates cannot be renewed, the old ones stay", extra={"reason": str(error)})
                self._complaint = str(error)
                return None
            self._signature, self._current, self._complaint = signature, renewed, ""
        _log.info("certificates renewed", extra={"file": str(self._cert)})
        return renewed

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for setting, path in self._settings():
            try:
                stat = path.stat()
            except OSError as error:
                raise ConfigError(f"{setting}: {str(path)!r} cannot be read: {error.strerror}") from error
            found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def _read(self) -> Certificates:
        texts = {}
        for setting, path in self._settings():
            try:
                texts[setting] = path.read_bytes()
            except OSError as error:
                raise ConfigError(f"{setting}: {str(path)!r} cannot be read: {error.strerror}") from error
        self._check(texts)
        return Certificates(texts["tls_cert"], texts["tls_key"], texts.get("tls_client_ca"))

    def _settings(self) -> list[tuple[str, Path]]:
        settings = [("tls_cert", self._cert), ("tls_key", self._key)]
        return settings if self._client_ca is None else [*settings, ("tls_client_ca", self._client_ca)]

    def _check(self, texts: dict[str, bytes]) -> None:
        _check_certificates("tls_cert", self._cert, texts["tls_cert"])
        if b"PRIVATE KEY-----" not in texts["tls_key"]:
            raise ConfigError(f"tls_key: {str(self._key)!r} has no private key in PEM form")
        if b"ENCRYPTED" in texts["tls_key"]:
            raise ConfigError(f"tls_key: {str(self._key)!r} is encrypted; a server cannot be asked for its passphrase")
        try:
            # Without the callback OpenSSL would ask on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key, password=lambda: b"")
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                said = f"does not belong to the certificate in tls_cert, {str(self._cert)!r}"
            else:
                said = f"cannot be used with tls_cert, {str(self._cert)!r}: {error.reason or error}"
            raise ConfigError(f"tls_key: {str(self._key)!r} {said}") from error
        except OSError as error:
            raise ConfigError(f"tls_key: {str(self._key)!r} cannot be read: {error.strerror}") from error
        if self._client_ca is not None:
            _check_certificates("tls_client_ca", self._client_ca, texts["tls_client_ca"])


def _check_certificates(setting: str, path: Path, text: bytes) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(f"{setting}: {str(path)!r} has no certificate in PEM form") from error
