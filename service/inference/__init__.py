"""One inference request, top to bottom: servicer, tensors, repository, runner."""
