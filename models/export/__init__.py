"""Trained networks as one-file ONNX models."""
