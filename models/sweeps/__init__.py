"""Many trainings at once, and what they say together.

A trial is one recipe with one seed. A plan lists trials, an executor runs them (processes of this machine, or a Ray
cluster), a folder keeps one file for each, and a summary says what the seeds of each recipe have in common.
"""
