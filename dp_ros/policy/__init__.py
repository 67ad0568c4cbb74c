"""The learned policy: image encoder, denoising networks, noise schedule, samplers, normaliser, checkpoint.

Pure torch. Of dp_ros it imports only `schema` and `actions`, and it keeps no episode state.
"""
