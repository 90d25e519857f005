"""Where attention happens in a model, found by watching one run of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpreto.model_wrapping.internals.attention_recorder import AttentionRecorder

_SHOWN = 6


@dataclass(frozen=True, eq=False)
class BlockStructure:
    """The blocks that hidden states go through, and what comes after them.

    Attributes:
        names: Of the blocks, in the order in which they run; one that runs several times (ALBERT) is there as often.
        blocks: The modules of these names.
        kinds: To which tower each block belongs: a list of modules of which it is one.
        pooler: The module after the last block in which attention makes one vector of all positions; None where none.
        norms: Normalisations after the last block that are no part of the pooler.
        batch: Which axis of the hidden states holds the rows.
    """

    names: tuple[str, ...]
    blocks: tuple[nn.Module, ...]
    kinds: tuple[str, ...]
    pooler: str | None
    norms: tuple[nn.Module, ...]
    batch: int

    def __len__(self) -> int:
        return len(self.blocks)


Path = tuple[tuple[str, int], ...]
"""The modules inside which something happens, from the outermost, with how often each has run."""


class _FirstCalls(TorchFunctionMode):
    """Notices where attention happens, and leaves it as it is."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.path: list[tuple[str, int]] = []
        self.seen: list[Path] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if AttentionRecorder.respond(func, args, kwargs or {}):
            self.seen.append(tuple(self.path))
        return func(*args, **(kwargs or {}))


def first_tensor(output: Any) -> Tensor | None:
    """The hidden states among what a block takes or returns."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return next((found for part in output if (found := first_tensor(part)) is not None), None)
    return first_tensor(tuple(output.values())) if isinstance(output, dict) else None


def replaced(output: Any, old: Any, new: Any) -> Any:
    """What a block takes or returns, with other hidden states."""
    if output is old:
        return new
    if isinstance(output, tuple):
        parts = [replaced(part, old, new) for part in output]
        named = getattr(output, "_fields", None) is not None
        return type(output)(*parts) if named else tuple(parts)
    if isinstance(output, list):
        return [replaced(part, old, new) for part in output]
    if isinstance(output, dict):
        return type(output)({name: replaced(part, old, new) for name, part in output.items()})
    return output


def discover_blocks(module: nn.Module, run: Callable[[], object], rows: int) -> BlockStructure | str:
    """Watch a run and say where its attention is, or why there is none that could be watched.

    Args:
        module: The model.
        run: Runs it on some rows.
        rows: How many these are; a number that no other axis has tells the axes of hidden states apart.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with _FirstCalls() as spotter, _followed(module, spotter.path, shapes):
        run()
    seen = spotter.seen
    if not seen:
        return _why_none(module, shapes)
    lists = {name for name, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)}
    busy = _busy(module, seen, lists)
    entries: list[tuple[str, int]] = []
    after: list[Path] = []
    for path in seen:
        block = _block(path, busy)
        if block is None:
            after.append(path)
        else:
            after = []
            if block not in entries:
                entries.append(block)
    if not entries:
        return (
            f"{type(module).__name__} has attention in {_listed([path[-1][0] for path in seen])} alone, in no list of "
            "blocks whose hidden states could be followed."
        )
    names = tuple(name for name, _ in entries)
    shape = shapes[names[0]]
    batch = 1 if len(shape) == 3 and shape[1] == rows != shape[0] else 0
    kinds = tuple(name.rpartition(".")[0] for name in names)
    around = (name for path in after for name, _ in path if not names[0].startswith(f"{name}."))
    pooler = next(around, None)
    ended = list(shapes)
    later = ended[ended.index(names[-1]) + 1 :]
    norms = tuple(
        part
        for name in later
        if "norm" in type(part := module.get_submodule(name)).__name__.lower()
        and not (pooler and name.startswith(f"{pooler}."))
    )
    return BlockStructure(names, tuple(map(module.get_submodule, names)), kinds, pooler, norms, batch)


def _busy(module: nn.Module, seen: Sequence[Path], lists: set[str]) -> dict[str, bool]:
    """The lists in whose items attention happens, and whether it does in each of them."""
    items: dict[str, set[str]] = defaultdict(set)
    for path in seen:
        for name, _ in path:
            parent = name.rpartition(".")[0]
            if parent in lists:
                items[parent].add(name)
    return {name: len(found) == len(list(module.get_submodule(name).children())) for name, found in items.items()}


def _block(path: Path, busy: dict[str, bool]) -> tuple[str, int] | None:
    """The block that an attention belongs to: an item of the innermost list all of whose items attend.

    Inside a block there may be lists as well, of an attention and something else; around it there are lists of stages.
    """
    inside = [entry for entry in path if entry[0].rpartition(".")[0] in busy]
    whole = [entry for entry in inside if busy[entry[0].rpartition(".")[0]]]
    return (whole or inside or [None])[-1]


@contextmanager
def _followed(module: nn.Module, path: list[tuple[str, int]], shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Keep `path` at the modules that are running, and note the shapes of what they return."""
    runs: dict[str, int] = defaultdict(int)
    handles = []
    for name, part in module.named_modules():
        if name:
            handles.append(part.register_forward_pre_hook(partial(_enter, path, runs, name)))
            handles.append(part.register_forward_hook(partial(_leave, path, shapes, name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(path: list[tuple[str, int]], runs: dict[str, int], name: str, *_: Any) -> None:
    runs[name] += 1
    path.append((name, runs[name]))


def _leave(
    path: list[tuple[str, int]], shapes: dict[str, tuple[int, ...]], name: str, _module: Any, _given: Any, output: Any
) -> None:
    path.pop()
    tensor = first_tensor(output)
    if tensor is not None:
        shapes.setdefault(name, tuple(tensor.shape))


def _why_none(module: nn.Module, ran: Iterable[str]) -> str:
    """Why no attention was seen in a run of these modules."""
    kinds = {name: type(module.get_submodule(name)).__name__.lower() for name in ran}
    suspects = [name for name, kind in kinds.items() if "attn" in kind or "attention" in kind]
    if not suspects:
        return f"{type(module).__name__} has no attention: GradCam and the methods that take gradients do without."
    return (
        f"The attention of {type(module).__name__} cannot be seen: {_listed(suspects)} neither call PyTorch's "
        "scaled_dot_product_attention or multi_head_attention_forward nor a softmax over keys."
    )


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:_SHOWN]) + (f" and {len(unique) - _SHOWN} more" if len(unique) > _SHOWN else "")
