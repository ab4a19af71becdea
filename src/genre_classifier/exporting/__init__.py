"""From a finished run or sweep to a bundle: choose the run, refit, verify, fill in the checklist.

Start at export.py: `export(cfg)` is behind the command. Uses runs, training and bundle.
"""
