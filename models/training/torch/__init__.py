"""The reference backend: PyTorch's tensors with gradients written by hand."""
