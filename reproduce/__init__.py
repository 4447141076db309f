"""The tables of "Squeeze-and-Attention Networks for Semantic Segmentation" (CVPR 2020), on top of ``sanet``.

It imports only what ``sanet.__all__`` names, so it is the standing proof that everything here can be done outside.
"""
