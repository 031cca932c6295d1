"""Readiness, the health service, and the probe that asks for it from outside."""
