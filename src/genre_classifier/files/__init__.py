"""Files on disk: atomic writes, and one guarded reader each for JSON, YAML, CSV, pickles and torch files.

Uses errors alone. What stands in a file is data: nothing that it names is imported, no size that it claims is believed.
"""
