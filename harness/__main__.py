"""``python -m harness`` is the console script."""

from harness.api.own_packages import forget_current_folder

forget_current_folder()

from harness.cli.main import main  # noqa: E402 - not before the search path is mended

if __name__ == "__main__":
    main()
