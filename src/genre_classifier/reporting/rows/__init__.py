"""What a report computes from a run's rows: permutation importance by family of features, and a map of the rows.

Needs the rows as the run had them.
"""
