"""A run's folder: its files and formats, its record, its predictions, and the lists of many such folders.

Start at folder.py. Every reader of a finished run uses this room. It uses data, evaluation and config.
"""
