"""Sweeps: many training runs, and statistics of their results.

A trial is one recipe with one seed. A plan lists trials, an executor runs them (processes of this machine, or a Ray
cluster), a folder keeps one file for each, and a summary has the mean and spread over the seeds of each recipe.
"""
