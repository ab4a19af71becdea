"""Metrics, intervals, calibration, paired tests, and how figures look: functions of arrays.

Does not read runs or folders.
"""
