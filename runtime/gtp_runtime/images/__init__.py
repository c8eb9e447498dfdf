"""Images: found in folders, with their classes; decoded; and preprocessed to a model's input."""
