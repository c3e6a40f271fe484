"""One run: recipe, loop, checkpoint. Nothing heavy is imported here."""
