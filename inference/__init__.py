"""Use a trained run: predict, explain, export. Reads the folders of runs and trains nothing."""
