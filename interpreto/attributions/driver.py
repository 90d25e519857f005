"""The one loop over batches: plans of several samples side by side, their rows packed together."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.arrangement import Arrangement
from interpreto.model_wrapping.conversation import Answer, Ask, Plan
from interpreto.model_wrapping.rows import Rows

Found = TypeVar("Found")
Run = Callable[[Sequence[Ask]], list[Answer]]
Arrange = Callable[[Ask], Arrangement | None]


@dataclass(eq=False)
class _Open(Generic[Found]):
    """A plan under way, its current ask, and the answers to the first rows of it."""

    number: int
    plan: Plan[Found]
    ask: Ask | None = None
    size: int = 0
    taken: int = 0
    parts: list[Answer] = field(default_factory=list)
    back: Int[Tensor, " p"] | None = None
    rows: int = 0

    @property
    def left(self) -> int:
        return self.size - self.taken

    def take(self, count: int) -> Ask:
        """The next rows of the ask, as an ask of their own."""
        assert self.ask is not None
        begin, self.taken = self.taken, self.taken + count
        if count == self.size:
            return self.ask
        return replace(self.ask, rows=self.ask.rows.take(slice(begin, begin + count)))

    def pose(self, ask: Ask, arrange: Arrange) -> None:
        """Take in the plan's next ask, its rows as they are best run."""
        arranged = arrange(ask)
        self.ask, self.back = (ask, None) if arranged is None else (replace(ask, rows=arranged.rows), arranged.back)
        self.size = len(self.ask.rows)
        self.taken, self.parts, self.rows = 0, [], self.rows + self.size

    def answer(self) -> Answer:
        """The answer to the whole ask, in the order in which the plan asked."""
        whole = _joined(self.parts)
        return whole if self.back is None else replace(whole, scores=whole.scores[self.back])


def drive(
    plans: Iterable[Plan[Found]],
    run: Run,
    batch_size: int,
    on_rows: Callable[[int], object] = lambda rows: None,
    arrange: Arrange = lambda ask: None,
) -> list[tuple[Found, int]]:
    """Advance plans until all have ended, and return what each found with the number of rows it sent.

    A plan is opened only when the rows that wait do not fill a batch, and goes on only then too: what is in memory is
    bounded by batches, not by plans. Rows of one kind share a batch; a batch that fills is run at once, others when
    nothing else can be done.

    Args:
        plans: One per sample, best in an order in which neighbours have rows of like length.
        run: What answers a batch of asks of one kind.
        batch_size: Rows per batch.
        on_rows: Told the number of rows of each batch that was run, and of rows that were answered by their equals.
        arrange: Says in which order the rows of an ask are best run, and which are equal.
    """
    found: dict[int, tuple[Found, int]] = {}
    waiting: dict[tuple[object, ...], deque[_Open[Found]]] = {}
    answered: list[_Open[Found]] = []
    fresh = enumerate(plans)

    def proceed(one: _Open[Found], answer: Answer | None) -> None:
        try:
            ask = next(one.plan) if answer is None else one.plan.send(answer)
        except StopIteration as stop:
            found[one.number] = (stop.value, one.rows)
            return
        one.pose(ask, arrange)
        if one.left < len(ask.rows):
            on_rows(len(ask.rows) - one.left)
        waiting.setdefault(ask.kind, deque()).append(one)

    while True:
        while all(sum(one.left for one in queue) < batch_size for queue in waiting.values()):
            if answered:
                # The earliest sample first: its memory is given back soonest.
                one = min(answered, key=lambda o: o.number)
                answered.remove(one)
                proceed(one, one.answer())
            elif (following := next(fresh, None)) is not None:
                proceed(_Open(*following), None)
            else:
                break
        if not waiting:
            return [found[number] for number in sorted(found)]
        kind = max(waiting, key=lambda k: sum(one.left for one in waiting[k]))
        batch, asks = _packed(waiting[kind], batch_size)
        for one, answer in zip(batch, _run(run, asks), strict=True):
            one.parts.append(answer)
            if not one.left:
                answered.append(one)
        if not waiting[kind]:
            del waiting[kind]
        on_rows(sum(len(ask.rows) for ask in asks))


def _packed(queue: deque[_Open[Found]], batch_size: int) -> tuple[list[_Open[Found]], list[Ask]]:
    """The first rows that wait, at most a batch; plans whose rows are all taken leave the queue."""
    batch, asks, free = [], [], batch_size
    while queue and free:
        one = queue[0]
        asks.append(one.take(min(free, one.left)))
        batch.append(one)
        free -= len(asks[-1].rows)
        if not one.left:
            queue.popleft()
    return batch, asks


def _run(run: Run, asks: Sequence[Ask]) -> list[Answer]:
    """Run a batch; where an accelerator's memory does not suffice, in halves."""
    try:
        return run(asks)
    except torch.OutOfMemoryError:
        if sum(len(ask.rows) for ask in asks) == 1:
            raise
    torch.cuda.empty_cache()
    if len(asks) > 1:
        middle = len(asks) // 2
        return _run(run, asks[:middle]) + _run(run, asks[middle:])
    (ask,) = asks
    middle = len(ask.rows) // 2
    halves = (replace(ask, rows=ask.rows.take(part)) for part in (slice(middle), slice(middle, None)))
    return [_joined([answer for half in halves for answer in _run(run, [half])])]


def _joined(parts: Sequence[Answer]) -> Answer:
    if len(parts) == 1:
        return parts[0]
    gradients = [part.gradients for part in parts if part.gradients is not None]
    inside = [part.inside for part in parts if part.inside is not None]
    return Answer(
        torch.cat([part.scores for part in parts]),
        torch.cat(gradients) if gradients else None,
        inside=torch.cat(inside) if inside else None,
    )


def together(plans: Sequence[Plan[Found]]) -> Plan[list[Found]]:
    """Several plans as one: their asks of the same kind and targets become one ask."""
    found: dict[int, Found] = {}
    asks: dict[int, Ask] = {}

    def proceed(number: int, answer: Answer | None) -> None:
        try:
            asks[number] = next(plans[number]) if answer is None else plans[number].send(answer)
        except StopIteration as stop:
            found[number] = stop.value

    for number in range(len(plans)):
        proceed(number, None)
    while asks:
        first = next(iter(asks.values()))
        alike = [n for n, ask in asks.items() if ask.kind == first.kind and ask.targets == first.targets]
        group = [asks.pop(number) for number in alike]
        answer = yield replace(first, rows=Rows.join([ask.rows for ask in group]))
        begin = 0
        for number, ask in zip(alike, group, strict=True):
            part = slice(begin, begin := begin + len(ask.rows))
            gradients = None if answer.gradients is None else answer.gradients[part]
            inside = None if answer.inside is None else answer.inside[part]
            proceed(number, Answer(answer.scores[part], gradients, inside=inside))
    return [found[number] for number in range(len(plans))]
