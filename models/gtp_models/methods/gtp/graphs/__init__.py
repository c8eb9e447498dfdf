"""The token graph (arXiv 2311.03035, section 3.3): which tokens are neighbours. One file an entry."""
