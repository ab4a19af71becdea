"""Feature sets: their names and order, how they are measured from audio files, and the cache of what was measured.

Start at sets.py (names, no audio library) and extract.py (a folder of songs to a table). Uses files and machine.
"""
