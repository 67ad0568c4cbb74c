"""What is learned: image encoder, denoising network, noise schedule, sampler, normaliser, checkpoint.

Pure torch; no other room of dp_ros but `schema` may enter, and no episode state is kept here.
"""
