"""Token propagation (arXiv 2311.03035, section 3.3): what the tokens that stay receive. One file an entry."""
