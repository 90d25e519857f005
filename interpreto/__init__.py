"""Feature attribution for transformers: which words of a text or patches of an image influence a model's output."""

import lazy_loader

__version__ = "0.1.0"

# The public names are listed in `__init__.pyi` and imported when they are first used: PyTorch and transformers take
# seconds to import, which `interpreto --help` and programs that only need the version do not.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
