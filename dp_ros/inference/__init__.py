"""Inference: engines that turn an observation window into an action chunk.

`engine` holds the `Engine` protocol, the table of engines and `load_engine`, the only way to get one; it imports no
torch. Each engine has a file of its own, which is imported when that engine is loaded.
"""
