"""Finding the transformer blocks of a model, by observing where one run computes attention."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from interpreto.model_wrapping.internals.attention_recorder import ATTENTION_FUNCTIONS, AttentionRecorder
from interpreto.typing import TorchFunction

_MAX_LISTED = 6


class NoBlocksError(Exception):
    """The blocks of a model cannot be observed; the message says why."""


@dataclass(frozen=True, eq=False)
class BlockStructure:
    """The blocks that hidden states pass through, and the modules after them.

    Attributes:
        names: Names of the blocks in the order in which they run; one that runs several times (ALBERT) is repeated.
        blocks: The modules of these names.
        kinds: The module list that contains each block, which tells towers and stages apart.
        pooler: The module after the last block that pools all positions into one vector by attention; None if there is
            none.
        norms: Normalization layers after the last block that are not part of the pooler.
        batch: The batch axis of the hidden states.
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
"""The modules that are running, from the outermost, with the number of the current call of each."""


class _FirstCalls(TorchFunctionMode):
    """Records in which modules attention is computed, without changing it."""

    def __init__(self) -> None:
        TorchFunctionMode.__init__(self)
        self.path: list[tuple[str, int]] = []
        self.seen: list[Path] = []

    def __torch_function__(
        self, func: TorchFunction, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        if func in ATTENTION_FUNCTIONS and AttentionRecorder.is_attention(func, args, kwargs or {}):
            self.seen.append(tuple(self.path))
        return func(*args, **(kwargs or {}))


def first_tensor(output: object) -> Tensor | None:
    """The hidden states among a block's inputs or outputs: the first tensor, searched depth first."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, list | tuple):
        return next((tensor for part in output if (tensor := first_tensor(part)) is not None), None)
    return first_tensor(tuple(output.values())) if isinstance(output, dict) else None


def replaced(output: object, old: object, new: object) -> Any:
    """A block's inputs or outputs with other hidden states."""
    if output is old:
        return new
    if isinstance(output, tuple):
        parts = [replaced(part, old, new) for part in output]
        is_named_tuple = getattr(output, "_fields", None) is not None
        # A named tuple takes its fields as separate arguments.
        return type(output)(*parts) if is_named_tuple else tuple(parts)
    if isinstance(output, list):
        return [replaced(part, old, new) for part in output]
    if isinstance(output, dict):
        return type(output)({name: replaced(part, old, new) for name, part in output.items()})
    return output


def discover_blocks(module: nn.Module, run: Callable[[], object], rows: int) -> BlockStructure:
    """Run a model once and find its blocks.

    Args:
        module: The model.
        run: Runs it on some rows.
        rows: Number of rows; the axis of this length in the hidden states is the batch axis.

    Raises:
        NoBlocksError: if none can be observed.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    with _FirstCalls() as locator, _tracked(module, locator.path, shapes):
        run()
    attention_paths = locator.seen
    if not attention_paths:
        raise NoBlocksError(_why_no_attention(module, shapes))
    lists = {name for name, part in module.named_modules() if isinstance(part, nn.ModuleList | nn.Sequential)}
    attending_lists = _lists_with_attention(module, attention_paths, lists)
    entries: list[tuple[str, int]] = []
    paths_after: list[Path] = []
    for path in attention_paths:
        block = _block_of(path, attending_lists)
        if block is None:
            paths_after.append(path)
        else:
            # Attention outside blocks, but before another block, is not a pooler.
            paths_after = []
            if block not in entries:
                entries.append(block)
    if not entries:
        raise NoBlocksError(
            f"{type(module).__name__} has attention only in {_listed([path[-1][0] for path in attention_paths])}, "
            "outside a list of blocks, so its hidden states cannot be followed."
        )
    names = tuple(name for name, _ in entries)
    shape = shapes[names[0]]
    # Some models (XLNet, older releases of OpenCLIP) keep positions first: `l p c`.
    batch = 1 if len(shape) == 3 and shape[1] == rows != shape[0] else 0
    kinds = tuple(name.rpartition(".")[0] for name in names)
    # The outermost module that attends after the last block, unless it contains the blocks as well.
    candidates = (name for path in paths_after for name, _ in path if not names[0].startswith(f"{name}."))
    pooler = next(candidates, None)
    # Insertion order of `shapes` is the order in which modules first ended.
    finished = list(shapes)
    later_names = finished[finished.index(names[-1]) + 1 :]
    norms = tuple(
        part
        for name in later_names
        if "norm" in type(part := module.get_submodule(name)).__name__.lower()
        and not (pooler and name.startswith(f"{pooler}."))
    )
    return BlockStructure(names, tuple(map(module.get_submodule, names)), kinds, pooler, norms, batch)


def _lists_with_attention(module: nn.Module, seen: Sequence[Path], lists: set[str]) -> dict[str, bool]:
    """The module lists whose items compute attention, and whether all of their items do."""
    items: dict[str, set[str]] = defaultdict(set)
    for path in seen:
        for name, _ in path:
            parent = name.rpartition(".")[0]
            if parent in lists:
                items[parent].add(name)
    return {
        name: len(attending) == len(list(module.get_submodule(name).children())) for name, attending in items.items()
    }


def _block_of(path: Path, busy: dict[str, bool]) -> tuple[str, int] | None:
    """The block that computes an attention: an item of the innermost list all of whose items attend.

    A block may contain lists too, of an attention and another layer; blocks may be in lists of stages.
    """
    entries = [entry for entry in path if entry[0].rpartition(".")[0] in busy]
    complete = [entry for entry in entries if busy[entry[0].rpartition(".")[0]]]
    return (complete or entries or [None])[-1]


@contextmanager
def _tracked(module: nn.Module, path: list[tuple[str, int]], shapes: dict[str, tuple[int, ...]]) -> Iterator[None]:
    """Keep `path` at the modules that are running, and record the shapes of their outputs."""
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


def _enter(path: list[tuple[str, int]], runs: dict[str, int], name: str, *_: object) -> None:
    runs[name] += 1
    path.append((name, runs[name]))


def _leave(
    path: list[tuple[str, int]],
    shapes: dict[str, tuple[int, ...]],
    name: str,
    _module: object,
    _given: object,
    output: object,
) -> None:
    path.pop()
    tensor = first_tensor(output)
    if tensor is not None:
        shapes.setdefault(name, tuple(tensor.shape))


def _why_no_attention(module: nn.Module, ran: Iterable[str]) -> str:
    """Why no attention was recorded in a run of these modules."""
    kinds = {name: type(module.get_submodule(name)).__name__.lower() for name in ran}
    suspects = [name for name, kind in kinds.items() if "attn" in kind or "attention" in kind]
    if not suspects:
        return f"{type(module).__name__} has no attention: use GradCam or a gradient method, which do not need any."
    return (
        f"The attention of {type(module).__name__} cannot be captured: {_listed(suspects)} call neither PyTorch's "
        "scaled_dot_product_attention or multi_head_attention_forward nor a softmax over keys."
    )


def _listed(names: Sequence[str]) -> str:
    unique = list(dict.fromkeys(names))
    return ", ".join(unique[:_MAX_LISTED]) + (
        f" and {len(unique) - _MAX_LISTED} more" if len(unique) > _MAX_LISTED else ""
    )
