"""The resources of this computer: processes that end together, cores, free GPUs, folders for caches.

Uses errors and the standard library.
"""
