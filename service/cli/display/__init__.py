"""What the commands print: tables, progress, colours, JSON."""
