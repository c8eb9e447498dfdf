"""Graph-based Token Propagation (arXiv 2311.03035, WACV 2024) in timm's Vision Transformers.

The maths (``graph``, ``selection``, ``sparsity``, ``propagation``) knows neither timm nor ONNX;
``attention``, ``blocks`` and ``patch`` know timm.
"""
