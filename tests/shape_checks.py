"""Makes the checks of types and shapes, which run in all tests, several times faster."""

import functools
import inspect
import typing

import jaxtyping


def skip_functions_without_arrays():
    """Let jaxtyping decorate only classes, and functions that have an array in their annotations.

    Its import hook decorates all functions; each call then binds its arguments to the signature, and checks them twice.
    A function without arrays has no shapes to compare, so the type checker alone checks it.
    """
    with_shapes = jaxtyping.jaxtyped

    def jaxtyped(*, typechecker):
        def decorate(decorated):
            if not inspect.isfunction(decorated) or any(map(_has_array, decorated.__annotations__.values())):
                return with_shapes(typechecker=typechecker)(decorated)
            return _checked_unless_disabled(decorated, typechecker(decorated))

        return decorate

    jaxtyping.jaxtyped = jaxtyped


def _checked_unless_disabled(function, checked):
    @functools.wraps(function)
    def call(*args, **options):
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **options)

    return call


def _has_array(annotation):
    if isinstance(annotation, str):
        return "[Tensor" in annotation or "ndarray" in annotation
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(map(_has_array, typing.get_args(annotation)))
