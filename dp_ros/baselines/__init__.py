"""The methods that Diffusion Policy is compared with: regression, mixture and implicit policies.

config      settings of the methods, of the toy, of the arm and of a whole comparison
methods/    one file a method; each is a head from observation vector to action chunk
toy/        the bimodal toy: paths around a disc, training on it, evaluation of the sampled paths
arm         the methods on a simulated arm: training, and episodes at several points of it
comparison  every method and seed on the toy, resumable; results.json
report      report.md, made from results.json
plots       the pictures of the report
"""
