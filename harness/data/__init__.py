"""Data as people have them: files and folders in, columns of values out."""
