"""Computes the parts of a report that need a run's rows: importance by family of features, and a map of the rows.

The rows must be those of the run.
"""
