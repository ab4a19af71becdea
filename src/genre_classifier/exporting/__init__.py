"""Exports a finished run or sweep as a bundle: chooses the run, refits, verifies, fills in the checklist.

Start at export.py: `export(cfg)` is behind the command. Uses runs, training and bundle.
"""
