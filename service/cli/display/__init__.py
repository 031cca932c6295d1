"""Output of the commands: tables, progress, colours, JSON."""
