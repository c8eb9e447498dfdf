"""Writes that are whole or not at all: a ``lock``, ``atomic`` (one file) and ``export`` (a whole directory).

A process may be killed before any call to the file system: what was there stays whole or the new content is, and the
next writer removes or finishes what is left.
"""
