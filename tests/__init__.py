"""Tests of interpreto."""

from tests.shape_checks import skip_functions_without_arrays

# Before any module of interpreto is imported.
skip_functions_without_arrays()
