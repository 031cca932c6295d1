"""The fused engine: whole training steps, compiled at run time by numba."""
