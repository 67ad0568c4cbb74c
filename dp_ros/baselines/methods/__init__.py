"""The compared methods, each a head: observation vector in, action chunk out.

`policy` combines a head with the encoder of DiffusionPolicy. Encoder, normalisers, data and training are the same for
all methods; only the head differs.
"""
