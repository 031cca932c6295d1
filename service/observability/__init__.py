"""Metrics and traces of a running server, and its log and trace settings, which can be changed over gRPC."""
