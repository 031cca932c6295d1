"""Readiness, the health service, and a client that probes it."""
