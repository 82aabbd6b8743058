"""Measurements of jaxnas that anyone can repeat; their dated results lie in `results/`."""
