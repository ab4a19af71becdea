"""A run's folder: its files and formats, its record, its predictions, and the lists of many such folders.

Start at folder.py. All that reads a finished run goes through here. Uses data, evaluation and config.
"""
