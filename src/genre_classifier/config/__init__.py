"""The settings: config groups with their fields and limits, checks across them, and messages for mistakes.

Uses errors and the names of features/. Imports neither torch nor Lightning. Start at schema.py.
"""
