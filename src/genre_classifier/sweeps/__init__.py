"""Starts, resumes and finishes a multirun. Each trial runs in a separate process; stacks of trials are in stacked/.

Start at start.py, then trial.py and finish.py. The launchers that Hydra finds are in src/hydra_plugins.
"""
