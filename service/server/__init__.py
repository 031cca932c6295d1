"""A running server: builds all parts, starts them in order and stops them in reverse."""
