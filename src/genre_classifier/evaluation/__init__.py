"""Metrics, intervals, calibration, paired tests, and how figures look: functions of arrays.

Knows nothing of runs or folders.
"""
