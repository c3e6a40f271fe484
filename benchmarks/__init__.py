"""Speed, measured. No package imports these."""
