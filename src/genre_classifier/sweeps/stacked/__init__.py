"""Trials of one shape trained side by side by training/engine, each into its own run folder.

Start at launch.py (which trials go together), then fit.py and member.py.
"""
