"""How good a policy is: episodes on unseen seeds, and what their outcomes prove."""
