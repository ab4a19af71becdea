"""Fits scikit-learn's and other models on the same rows as a network. Each is a run with a run's folder.

Start at models.py, which lists them. Uses data, evaluation and runs.
"""
