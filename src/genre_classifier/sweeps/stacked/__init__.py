"""Trains trials of one shape side by side with training/engine, each into its own run folder.

Start at stacked_jobs.py and grouping.py (which trials go together), then read fit.py and member.py.
"""
