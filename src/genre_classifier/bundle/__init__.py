"""The production bundle: its files and format, reading, writing and publishing it, and predicting from it.

Start at format.py (content of a bundle), writing.py (how it is written) and predictor.py (how it answers). Torch is
imported only to build a network.
"""
