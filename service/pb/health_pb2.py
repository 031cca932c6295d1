"""Messages of protos/health.proto; see service/pb/__init__.py."""

from . import load

globals().update(load("health"))
