"""``python -m harness`` is the console script."""

from harness.cli.main import main

main()
