"""Comparison of Diffusion Policy with other methods: regression, mixture and implicit policies. No ROS.

`methods/` has one file per method, `toy/` the bimodal toy, `arm` the methods on a simulated arm. `comparison` runs
them, `report` and `plots` show the results.
"""
