"""Nodes as child processes: environment, start and stop, sessions of episodes, launch files."""
