"""Writes a run's or a sweep's report: one HTML file that needs no other file.

Start at report.py. run_view.py and sweep_view.py gather the content of the templates. Uses runs and evaluation.
"""
