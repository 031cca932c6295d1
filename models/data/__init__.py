"""MNIST-1D: the examples, their augmentation and the order of batches. No torch."""
