"""What finished runs say together: leaderboard, paired comparison, out-of-fold predictions, the figure of a sweep.

Only validation metrics rank; test metrics are shown.
"""
