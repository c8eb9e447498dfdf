"""The trained default: a small ViT for handwritten digits, with its weights and its test images.

``train.py`` made both from scikit-learn's digits; ``recipes/digits.yaml`` describes the model.
"""
