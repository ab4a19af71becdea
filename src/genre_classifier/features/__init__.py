"""Feature sets: their names and order, measuring them from audio files, and the cache of measured files.

Start at sets.py (names, no audio library) and extract.py (a folder of songs to a table). Uses files and machine.
"""
