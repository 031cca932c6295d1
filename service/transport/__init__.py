"""How bytes arrive: one table of methods, and the engines that run it."""
