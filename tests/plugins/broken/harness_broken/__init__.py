"""A plugin whose own dependency is missing, as after a failed upgrade."""

import a_library_that_is_not_installed  # noqa: F401
