"""Training: datasets from the scripted expert, policies from datasets."""
