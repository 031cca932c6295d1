"""The fused engine: whole training steps compiled at run time. numba, no torch; see `models.fused.engine`."""
