"""Live view of a robot and its policy for people: a page for a browser, and a server for Foxglove.

It runs in a process of its own, at nice 10, and publishes nothing. What cannot be shown in time is dropped.
"""
