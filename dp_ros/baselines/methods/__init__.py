"""The compared methods, each a head: observation vector in, action chunk out.

`policy` puts a head behind the encoder of DiffusionPolicy. Encoder, normalisers, data and training are the same for
all methods; only the head differs.
"""
