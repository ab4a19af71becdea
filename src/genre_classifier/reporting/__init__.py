"""One HTML file of a run or sweep, complete in itself.

Start at report.py; run_view.py and sweep_view.py gather what the templates show. Uses runs and evaluation.
"""
