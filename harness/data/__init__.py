"""Reading of data files and folders, splits, and conversion of texts to token ids."""
