"""Serving and training as gRPC services. The server process never imports torch."""
