"""The commands: one file for each subcommand of genre-classifier; hydra_entry.py stands around train and export.

The lowest-level rooms are imported when a command runs, so that --help is quick.
"""
