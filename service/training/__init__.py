"""Training as a service. It depends on the inference side only through `service.training.serving`."""
