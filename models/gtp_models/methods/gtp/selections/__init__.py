"""Token selection (arXiv 2311.03035, section 3.2): which tokens stay. One file an entry, or a family of entries."""
