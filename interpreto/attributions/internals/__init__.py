"""Methods that look inside, as pure functions of what is seen there."""
