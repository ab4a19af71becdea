"""Trains stacks where the user wants them: in processes of this machine, on a Ray cluster, or as jobs of Slurm.

Start at stack.py (the unit of work) and choice.py (the settings). Ray and submitit schedule; nothing here does.
"""
