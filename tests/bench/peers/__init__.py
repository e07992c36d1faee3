"""What users would run instead of sipnat, measured beside it in one run."""
