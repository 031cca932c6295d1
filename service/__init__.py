"""Serving (and later training) as gRPC services. Never imports torch."""
