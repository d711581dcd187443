"""Checks for authors: does a plugin keep the promises of its interface?

``__init__.pyi`` lists the names; each is imported when it is first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
