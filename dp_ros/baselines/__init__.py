"""Methods that Diffusion Policy is compared with: regression, mixture and implicit policies, on a toy and on an arm."""
