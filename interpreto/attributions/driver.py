"""The one loop over batches: plans of several samples side by side, their rows packed together."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.arrangement import Arrangement
from interpreto.model_wrapping.conversation import Answer, Ask, Plan
from interpreto.model_wrapping.rows import Rows

Found = TypeVar("Found")
Run = Callable[[Sequence[Ask]], list[Answer]]
Arrange = Callable[[Ask], Arrangement | None]

_AHEAD = 16
"""Until how many batches wait plans go on in one go: a run of the model drives what they need out of the processor's
caches."""
_MADE = 2**26
"""Or until how many bytes of rows and gradients were asked for, if a batch waits."""


@dataclass(eq=False)
class _Posed:
    """An ask under way, its rows as they are best run, and the answers to the first of them."""

    owner: "_Open[Any]"
    ask: Ask
    size: int
    back: Int[Tensor, " p"] | None = None
    taken: int = 0
    parts: list[Answer] = field(default_factory=list)

    @property
    def left(self) -> int:
        return self.size - self.taken

    def take(self, count: int) -> Ask:
        """The next rows of the ask, as an ask of their own."""
        begin, self.taken = self.taken, self.taken + count
        if count == self.size:
            return self.ask
        return replace(self.ask, rows=self.ask.rows.take(slice(begin, begin + count)))

    def answer(self) -> Answer:
        """The answer to the whole ask, in the order in which the plan asked."""
        whole = Answer.joined(self.parts)
        return whole if self.back is None else replace(whole, scores=whole.scores[self.back])


@dataclass(eq=False)
class _Open(Generic[Found]):
    """A plan under way, what it asks at present, and how many of these asks are not answered."""

    number: int
    plan: Plan[Found]
    posed: list[_Posed] = field(default_factory=list)
    waits: int = 0
    rows: int = 0

    def pose(self, ask: Ask, arrange: Arrange) -> None:
        """Take in what the plan asks next."""
        self.posed = []
        for one in ask.all:
            arranged, back = arrange(one), None
            if arranged is not None:
                one, back = replace(one, rows=arranged.rows), arranged.back
            posed = _Posed(self, one, len(one.rows), back)
            self.posed.append(posed)
            self.rows += posed.size
        self.waits = len(self.posed)

    def answer(self) -> Answer:
        """The answer to all that was asked."""
        return Answer.of_all([one.answer() for one in self.posed])


@dataclass(eq=False)
class _Queue:
    """Asks of one kind that wait, and how many rows they have left."""

    posed: deque[_Posed] = field(default_factory=deque)
    rows: int = 0

    def put(self, posed: _Posed) -> None:
        """Let an ask wait."""
        self.posed.append(posed)
        self.rows += posed.size

    def batch(self, size: int) -> tuple[list[_Posed], list[Ask]]:
        """The first rows that wait, at most a batch; asks whose rows are all taken leave the queue."""
        posed, asks, free = [], [], min(size, self.rows)
        self.rows -= free
        # An ask may have no rows at all.
        while self.posed and (free or not self.posed[0].left):
            one = self.posed[0]
            count = min(free, one.left)
            asks.append(one.take(count))
            posed.append(one)
            free -= count
            if not one.left:
                self.posed.popleft()
        return posed, asks


def drive(
    plans: Iterable[Plan[Found]],
    run: Run,
    batch_size: int,
    on_rows: Callable[[int], object] = lambda rows: None,
    arrange: Arrange = lambda ask: None,
) -> list[tuple[Found, int]]:
    """Advance plans until all have ended, and return what each found with the number of rows it sent.

    A plan is opened only when the rows that wait do not fill a batch, and goes on only then too; several are asked in
    one go then, until some batches wait. What is in memory is bounded by these and by the last ask, not by the number
    of plans. Rows of one kind share a batch; a batch that fills is run at once, others when nothing else can be done.

    Args:
        plans: One per sample, best in an order in which neighbours have rows of like length.
        run: What answers a batch of asks of one kind.
        batch_size: Rows per batch.
        on_rows: Told the number of rows of each batch that was run, and of rows that were answered by their equals.
        arrange: Says in which order the rows of an ask are best run, and which are equal.
    """
    found: dict[int, tuple[Found, int]] = {}
    waiting: dict[tuple[object, ...], _Queue] = {}
    # A heap, the earliest sample first: its memory is given back soonest.
    answered: list[tuple[int, _Open[Found]]] = []
    fresh = enumerate(plans)

    def short_of(rows: int) -> bool:
        return all(queue.rows < rows for queue in waiting.values())

    def proceed(one: _Open[Found], answer: Answer | None) -> float:
        """Let a plan go on; how many bytes there will be of what it asks for."""
        try:
            ask = next(one.plan) if answer is None else one.plan.send(answer)
        except StopIteration as stop:
            found[one.number] = (stop.value, one.rows)
            # What was asked names its owner: a circle that would wait for the garbage collector, answers and all.
            one.posed = []
            return 0.0
        one.pose(ask, arrange)
        made = 0.0
        for posed, asked in zip(one.posed, ask.all, strict=True):
            made += asked.nbytes
            if posed.back is not None and posed.size < len(asked.rows):
                on_rows(len(asked.rows) - posed.size)
            waiting.setdefault(asked.kind, _Queue()).put(posed)
        return made

    while True:
        low, made = short_of(batch_size), 0.0
        while short_of(batch_size) or (low and made < _MADE and short_of(_AHEAD * batch_size)):
            if answered:
                _, one = heappop(answered)
                made += proceed(one, one.answer())
            elif (following := next(fresh, None)) is not None:
                made += proceed(_Open(*following), None)
            else:
                break
        if not waiting:
            return [found[number] for number in sorted(found)]
        kind = max(waiting, key=lambda k: waiting[k].rows)
        queue = waiting[kind]
        before = queue.rows
        batch, asks = queue.batch(batch_size)
        for posed, answer in zip(batch, _run(run, asks), strict=True):
            posed.parts.append(answer)
            if not posed.left:
                posed.owner.waits -= 1
                if not posed.owner.waits:
                    heappush(answered, (posed.owner.number, posed.owner))
        if not queue.posed:
            del waiting[kind]
        on_rows(before - queue.rows)


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
    return [Answer.joined([answer for half in halves for answer in _run(run, [half])])]


def together(plans: Sequence[Plan[Found]]) -> Plan[list[Found]]:
    """Several plans as one: what they ask at a time is asked at once, asks of the same kind and targets as one."""
    found: dict[int, Found] = {}
    open_: dict[int, Ask] = {}

    def proceed(number: int, answer: Answer | None) -> None:
        try:
            open_[number] = next(plans[number]) if answer is None else plans[number].send(answer)
        except StopIteration as stop:
            found[number] = stop.value

    for number in range(len(plans)):
        proceed(number, None)
    while open_:
        numbers = [number for number, whole in open_.items() for _ in whole.all]
        asks = [ask for whole in open_.values() for ask in whole.all]
        open_.clear()
        groups = _alike(asks)
        whole = yield Ask.of_all(
            [replace(asks[group[0]], rows=Rows.join([asks[place].rows for place in group])) for group in groups]
        )
        dealt: dict[int, Answer] = {}
        for group, answer in zip(groups, whole.all, strict=True):
            begin = 0
            for place in group:
                part = slice(begin, begin := begin + len(asks[place].rows))
                dealt[place] = _part(answer, part)
        for number in dict.fromkeys(numbers):
            proceed(number, Answer.of_all([dealt[place] for place, whose in enumerate(numbers) if whose == number]))
    return [found[number] for number in range(len(plans))]


def _alike(asks: Sequence[Ask]) -> list[list[int]]:
    """The places of asks that can become one: of the same kind and targets."""
    groups: list[list[int]] = []
    for place, ask in enumerate(asks):
        same = (g for g in groups if asks[g[0]].kind == ask.kind and asks[g[0]].targets == ask.targets)
        group = next(same, None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    return groups


def _part(answer: Answer, part: slice) -> Answer:
    """What an answer says of some of the rows."""
    gradients = None if answer.gradients is None else answer.gradients[part]
    inside = None if answer.inside is None else answer.inside[part]
    return Answer(answer.scores[part], gradients, inside=inside)
