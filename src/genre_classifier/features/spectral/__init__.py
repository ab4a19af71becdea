"""The measures themselves: core20 by SciPy alone, gtzan57 and fma518 by librosa.

Functions of a signal; they know of no file.
"""
