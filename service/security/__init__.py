"""Who may call what: rights, tokens, certificates."""
