"""The production bundle: its files and format, reading, writing and publishing it, and predicting from it.

Start at format.py (what is in a bundle), writing.py (how one is made) and predictor.py (what answers). Torch is
imported only to build a network.
"""
