"""Training runs: recipes, the loop, its two backends, checkpoints and events."""
