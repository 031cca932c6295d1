"""Messages of protos/training.proto; see service/pb/__init__.py."""

from service.pb import load

globals().update(load("training"))
