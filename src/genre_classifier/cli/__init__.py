"""The commands: one file for each subcommand of genre-classifier; hydra_entry.py wraps train and export.

A command imports the other rooms when it runs, so --help is quick.
"""
