"""Running one model: its queue, its runs and its statistics."""
