"""Decodes an audio file to clips of mono samples, in this process or in a separate one with limits.

Uses files, machine and the names of features/; soundfile and soxr are imported on first use.
"""
