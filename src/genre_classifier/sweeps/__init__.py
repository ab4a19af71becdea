"""Starting, resuming and finishing a multirun, each trial in a process apart; stacks of trials are in stacked/.

Start at start.py, then trial.py and finish.py. The launchers that Hydra finds are in src/hydra_plugins.
"""
