"""Messages of protos/training.proto; see service/pb/__init__.py."""

from . import load

globals().update(load("training"))
