"""The fast engine: HTTP/2 for gRPC, implemented on an asyncio protocol (RFC 9113, gRPC over HTTP/2)."""
