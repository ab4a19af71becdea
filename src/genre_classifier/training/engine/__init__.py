"""Trains k networks of one shape side by side, with the member axis first: a single run is k = 1, a stack is k > 1.

It takes chains of linear layers, ReLU and dropout, and refuses everything else. Start at layers.py and steps.py.
It may use torch and the data's types. It does not use Lightning, run folders or sweeps.
"""
