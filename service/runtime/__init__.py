"""One model at work: its queue, its runs and its statistics."""
