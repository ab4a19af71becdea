"""Reads and writes files: atomic writes, and one guarded reader each for JSON, YAML, CSV, pickles and torch files.

Uses only errors. A file's content is data: no name in it is imported, and no size in it is trusted.
"""
