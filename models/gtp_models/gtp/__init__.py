"""Graph-based Token Propagation (arXiv 2311.03035, WACV 2024) in timm's Vision Transformers.

The maths (``graph``, ``selection``, ``sparsity``, ``propagation``, ``rotary``) knows neither timm nor ONNX;
``families`` knows timm, one file a family; ``attention``, ``blocks`` and ``patch`` put it to use.
"""
