"""What can be set: the groups, their fields and limits, checks across them, and the answer to a mistake.

Uses errors and the names of features/; loads neither torch nor Lightning. Start at schema.py.
"""
