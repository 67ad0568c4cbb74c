"""The methods Diffusion Policy is compared with, each a head: observation vector in, chunk of actions out.

Encoder, normaliser, data and training are those of DiffusionPolicy; only the head differs.
"""
