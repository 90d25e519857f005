"""At which points of the input space gradients are taken."""
