"""The one loop over batches: the plans of several samples run side by side, and their rows share batches."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import accumulate
from typing import Any, Generic, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, Respond
from interpreto.model_wrapping.rows import DeduplicatedRows, Rows

Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")
Deduplicate = Callable[[ModelRequest], DeduplicatedRows | None]

PREFETCH_BATCHES = 16
"""Plans are advanced until this many batches wait: a run of the model evicts the data of plans from the CPU's caches,
so that it is faster to prepare several batches in one go."""
MAX_BUFFERED_BYTES = 2**26
"""Plans are advanced until this many bytes of rows and gradients are requested, while a batch waits."""


@dataclass(eq=False)
class _PendingRequest:
    """A request in progress: its rows in the order in which they run, and the responses to those that have run."""

    plan: "_RunningPlan[Any]"
    request: ModelRequest
    size: int
    inverse: Int[Tensor, " p"] | None = None
    n_taken: int = 0
    parts: list[ModelResponse] = field(default_factory=list)

    @property
    def n_left(self) -> int:
        return self.size - self.n_taken

    def take(self, count: int) -> ModelRequest:
        """The next rows of the request, as a request of their own."""
        begin, self.n_taken = self.n_taken, self.n_taken + count
        if count == self.size:
            return self.request
        return replace(self.request, rows=self.request.rows.take(slice(begin, begin + count)))

    def response(self) -> ModelResponse:
        """The response to the whole request; scores are expanded to the rows as the plan sent them."""
        combined = ModelResponse.concatenate(self.parts)
        return combined if self.inverse is None else replace(combined, scores=combined.scores[self.inverse])


@dataclass(eq=False)
class _RunningPlan(Generic[Result]):
    """A plan in progress, its current requests, and the number of those without a response."""

    number: int
    run: PlanRun[Result]
    pending: list[_PendingRequest] = field(default_factory=list)
    n_pending: int = 0
    n_evaluations: int = 0

    def submit(self, request: ModelRequest, deduplicate: Deduplicate) -> None:
        """Take the plan's next request."""
        self.pending = []
        for one in request.flattened:
            unique, inverse = deduplicate(one), None
            if unique is not None:
                one, inverse = replace(one, rows=unique.rows), unique.inverse
            pending = _PendingRequest(self, one, len(one.rows), inverse)
            self.pending.append(pending)
            self.n_evaluations += pending.size
        self.n_pending = len(self.pending)

    def response(self) -> ModelResponse:
        """The response to all current requests."""
        return ModelResponse.combine([one.response() for one in self.pending])


@dataclass(eq=False)
class _Queue:
    """Waiting requests with one batch key, and the number of rows they have left."""

    pending: deque[_PendingRequest] = field(default_factory=deque)
    rows: int = 0

    def put(self, pending: _PendingRequest) -> None:
        """Add a request."""
        self.pending.append(pending)
        self.rows += pending.size

    def batch(self, size: int) -> tuple[list[_PendingRequest], list[ModelRequest]]:
        """The first waiting rows, at most a batch; requests without further rows leave the queue."""
        pending, requests, n_available = [], [], min(size, self.rows)
        self.rows -= n_available
        # A request may have no rows at all.
        while self.pending and (n_available or not self.pending[0].n_left):
            one = self.pending[0]
            count = min(n_available, one.n_left)
            requests.append(one.take(count))
            pending.append(one)
            n_available -= count
            if not one.n_left:
                self.pending.popleft()
        return pending, requests


def run_plans(
    plans: Iterable[PlanRun[Result]],
    respond: Respond,
    batch_size: int,
    on_evaluations: Callable[[int], object] = lambda rows: None,
    deduplicate: Deduplicate = lambda request: None,
) -> list[tuple[Result, int]]:
    """Run plans until all have ended, and return the result of each with its number of evaluations.

    When no queue has a full batch, plans are advanced until `PREFETCH_BATCHES` batches or `MAX_BUFFERED_BYTES` bytes
    wait. The longest queue runs next; a partial batch runs only if no plan can be advanced. Rows with equal batch keys
    share a batch. Memory is bounded by the waiting batches and the last request, not by the number of plans.

    Args:
        plans: One per sample, best sorted by the length of their rows.
        respond: Runs a batch of requests that share a batch key.
        batch_size: Rows per batch.
        on_evaluations: Called with the number of rows after each batch, and with the number of duplicates that are not
            run.
        deduplicate: Returns the unique rows of a request, in the order that is most efficient for the model; None to
            run all rows as they are.
    """
    results: dict[int, tuple[Result, int]] = {}
    waiting: dict[tuple[object, ...], _Queue] = {}
    # A heap with the earliest sample first: its memory is released soonest.
    resumable: list[tuple[int, _RunningPlan[Result]]] = []
    remaining = enumerate(plans)

    def all_queues_below(size: int) -> bool:
        return all(queue.rows < size for queue in waiting.values())

    def advance(one: _RunningPlan[Result], response: ModelResponse | None) -> float:
        """Continue a plan, and return the number of bytes of its next request."""
        try:
            request = next(one.run) if response is None else one.run.send(response)
        except StopIteration as stop:
            results[one.number] = (stop.value, one.n_evaluations)
            # Break the reference cycle between request and plan.
            one.pending = []
            return 0.0
        one.submit(request, deduplicate)
        n_bytes = 0.0
        for pending, part in zip(one.pending, request.flattened, strict=True):
            n_bytes += part.nbytes
            if pending.inverse is not None and pending.size < len(part.rows):
                on_evaluations(len(part.rows) - pending.size)
            waiting.setdefault(part.batch_key, _Queue()).put(pending)
        return n_bytes

    while True:
        prefetches, n_bytes = all_queues_below(batch_size), 0.0
        while all_queues_below(batch_size) or (
            prefetches and n_bytes < MAX_BUFFERED_BYTES and all_queues_below(PREFETCH_BATCHES * batch_size)
        ):
            if resumable:
                _, one = heappop(resumable)
                n_bytes += advance(one, one.response())
            elif (following := next(remaining, None)) is not None:
                n_bytes += advance(_RunningPlan(*following), None)
            else:
                break
        if not waiting:
            return [results[number] for number in sorted(results)]
        batch_key = max(waiting, key=lambda k: waiting[k].rows)
        queue = waiting[batch_key]
        before = queue.rows
        batch, requests = queue.batch(batch_size)
        for pending, response in zip(batch, _respond_in_halves(respond, requests), strict=True):
            pending.parts.append(response)
            if not pending.n_left:
                pending.plan.n_pending -= 1
                if not pending.plan.n_pending:
                    heappush(resumable, (pending.plan.number, pending.plan))
        if not queue.pending:
            del waiting[batch_key]
        on_evaluations(before - queue.rows)


def _respond_in_halves(respond: Respond, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
    """Run a batch; in halves if an accelerator's memory does not suffice."""
    try:
        return respond(requests)
    except torch.OutOfMemoryError:
        if sum(len(request.rows) for request in requests) == 1:
            raise
    torch.cuda.empty_cache()
    if len(requests) > 1:
        middle = len(requests) // 2
        return _respond_in_halves(respond, requests[:middle]) + _respond_in_halves(respond, requests[middle:])
    (request,) = requests
    middle = len(request.rows) // 2
    halves = (replace(request, rows=request.rows.take(part)) for part in (slice(middle), slice(middle, None)))
    responses = [response for half in halves for response in _respond_in_halves(respond, [half])]
    return [ModelResponse.concatenate(responses)]


def join_plans(plans: Sequence[PlanRun[Result]]) -> PlanRun[list[Result]]:
    """Several plans as one: their requests are sent together; those with equal batch keys and targets are merged."""
    results: dict[int, Result] = {}
    active: dict[int, ModelRequest] = {}

    def advance(number: int, response: ModelResponse | None) -> None:
        try:
            active[number] = next(plans[number]) if response is None else plans[number].send(response)
        except StopIteration as stop:
            results[number] = stop.value

    for number in range(len(plans)):
        advance(number, None)
    while active:
        if len(active) == 1:
            # Nothing can be merged with the requests of the last plan.
            number, request = active.popitem()
            advance(number, (yield request))
            continue
        numbers = [number for number, combined in active.items() for _ in combined.flattened]
        requests = [request for combined in active.values() for request in combined.flattened]
        active.clear()
        groups = _alike(requests)
        combined = yield ModelRequest.combine([_merged([requests[index] for index in group]) for group in groups])
        responses: dict[int, ModelResponse] = {}
        for group, response in zip(groups, combined.flattened, strict=True):
            responses |= zip(group, _split(response, [len(requests[index].rows) for index in group]), strict=True)
        for number in dict.fromkeys(numbers):
            advance(
                number,
                ModelResponse.combine([responses[index] for index, owner in enumerate(numbers) if owner == number]),
            )
    return [results[number] for number in range(len(plans))]


def join_two(first: PlanRun[First], second: PlanRun[Second]) -> PlanRun[tuple[First, Second]]:
    """Two plans with different results as one; the first gets its responses before the second does."""
    results: list[Any] = yield from join_plans([first, second])
    return results[0], results[1]


def _alike(requests: Sequence[ModelRequest]) -> list[list[int]]:
    """Groups of requests that can become one, because only their rows differ."""
    groups: list[list[int]] = []
    for index, request in enumerate(requests):
        group = next((group for group in groups if _differ_in_rows_only(requests[group[0]], request)), None)
        if group is None:
            groups.append([index])
        else:
            group.append(index)
    return groups


def _merged(requests: Sequence[ModelRequest]) -> ModelRequest:
    """One request for the rows of several that differ in nothing else."""
    first = requests[0]
    return first if len(requests) == 1 else replace(first, rows=Rows.join([request.rows for request in requests]))


def _split(response: ModelResponse, sizes: Sequence[int]) -> list[ModelResponse]:
    """The responses to the requests that were merged, which have these numbers of rows."""
    if len(sizes) == 1:
        return [response]
    ends = list(accumulate(sizes))
    return [response.take(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]


def _differ_in_rows_only(one: ModelRequest, other: ModelRequest) -> bool:
    same_response = one.targets == other.targets and one.return_outputs == other.return_outputs
    return same_response and one.batch_key == other.batch_key
