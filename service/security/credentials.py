"""Reads and checks the TLS and token files that a server's settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.security.access import Tokens
from service.security.tls import CertificateFiles
from service.security.tokens import TokenFile

if TYPE_CHECKING:
    from pathlib import Path

    from service.config import ServerConfig


def certificates_of(config: ServerConfig) -> CertificateFiles | None:
    """The certificates of the settings, None without TLS; raises ConfigError for files that cannot be used."""
    if config.tls_cert is None or config.tls_key is None:
        return None
    return CertificateFiles(config.tls_cert, config.tls_key, config.tls_client_ca)


def tokens_of(config: ServerConfig) -> Tokens:
    """The token files of the settings; raises ConfigError for files that cannot be used."""
    return Tokens(
        _tokens("inference_tokens", config.inference_tokens), _tokens("control_tokens", config.control_tokens)
    )


def _tokens(setting: str, path: Path | None) -> TokenFile | None:
    return TokenFile(setting, path) if path is not None else None
