"""What a published model is, on disk and in memory: the only part of models that the service knows. No torch."""
