"""Messages of protos/open_inference.proto; see service/pb/__init__.py."""

from . import load

globals().update(load("open_inference"))
