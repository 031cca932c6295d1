"""The path of an inference request: servicer, checks of its tensors, queueing, response."""
