"""Training as a service: one run, top to bottom. Knows the inference side only by what it is told of it."""
