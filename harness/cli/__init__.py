"""The command line. A command is a module; its heavy imports are inside its function."""
