"""Measure what cheaper sequence-to-sequence fine-tuning costs in quality.

This is the public API, for plugins and scripts alike. ``__init__.pyi`` lists its names; each is
imported when it is first used, so that ``import harness`` never imports torch.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
