"""Files for other runtimes, made from the float32 graphs of an export and proven on its parity pack."""
