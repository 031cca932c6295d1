"""The report of a run: one HTML file that shows why convolution wins, made from a version's own files. No torch."""
