"""The numbers that every comparison of tokens by cosine shares."""

NEVER = -4.0  # less than any cosine
EPS = 1e-24  # of a squared length: keeps the similarity of a zero vector finite
