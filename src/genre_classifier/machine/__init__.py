"""What this computer has and allows: processes that end together, cores, free GPUs, folders for caches.

Uses errors and the standard library; nothing here knows of music or training.
"""
