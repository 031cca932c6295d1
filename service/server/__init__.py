"""A running server: every part built, started in order and stopped in reverse."""
