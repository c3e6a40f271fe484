"""Use what was trained: predict, explain, export. Knows models, data and ablations; reads run
folders, trains nothing.

Nothing heavy is imported here.
"""
