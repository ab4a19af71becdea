"""From an audio file to clips of mono samples, here or in a process apart that has limits.

Uses files, machine and the names of features/; soundfile and soxr are imported on first use.
"""
