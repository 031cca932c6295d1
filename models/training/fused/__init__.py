"""The fused engine: whole training steps compiled at run time. numba, no torch; see `models.training.fused.fused_engine`."""
