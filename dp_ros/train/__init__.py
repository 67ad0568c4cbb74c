"""Makes datasets from experts and policies from datasets."""
