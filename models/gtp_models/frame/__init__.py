"""The frame: runs any method inside timm's Vision Transformers.

``tokens`` travel from block to block; ``blocks`` run timm's blocks with a method between attention and MLP;
``attention`` recomposes timm's, with rotary embeddings; ``families`` know timm, one file a family; ``patch`` puts it in
place and ``trace`` records what happened. Nothing here depends on a method.
"""
