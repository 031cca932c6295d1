"""Several processes that are one server: a supervisor, its workers, and the line between them."""
