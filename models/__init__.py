"""Data, networks, training, export and proof of the MNIST-1D models. Knows nothing of gRPC."""

__version__ = "0.1.0"
