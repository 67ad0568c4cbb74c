"""Executables: one lifecycle node or terminal program per file. Behaviour lives in `dp_ros.control`."""
