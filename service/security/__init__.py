"""Access control: rights, tokens, certificates."""
