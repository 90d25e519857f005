"""Feature attribution: methods, metrics, granularities and the pipeline that they share."""

import lazy_loader

# As in the package's root, names are imported when they are first used.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
