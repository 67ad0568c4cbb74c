"""Fault injection: a robot and a policy node that can be told to fail, and the suite that measures what follows."""
