"""Images in: data sets, the decode-once image store, augmentation, loader."""
