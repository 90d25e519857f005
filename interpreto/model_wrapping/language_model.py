"""A causal language model as it is run: rows in, scores at the asked positions out."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache

from interpreto.errors import ModelError
from interpreto.model_wrapping import prefix
from interpreto.model_wrapping.conversation import Answer, Ask
from interpreto.model_wrapping.embeddings import EMBEDDINGS, replaced
from interpreto.model_wrapping.gradient_check import GradientCheck, not_differentiable, with_gradients
from interpreto.model_wrapping.head import Head, applied_at, gradients
from interpreto.model_wrapping.inside.guided import guided
from interpreto.model_wrapping.precision import at_least_float32, precision
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, rounding
from interpreto.model_wrapping.task import unwrapped
from interpreto.model_wrapping.text_model import TextModel, adds_tokens, first_position, reads_length
from interpreto.model_wrapping.token_targets import TokenTargets

_PROVABLE = 3
"""Tokens of a text on which it can be seen whether a model goes on from a part of it, at least."""
_LOGITS = 2**26
"""Numbers in the logits of one run, at most (256 MB)."""


@final
class LanguageModel:
    """Rows are a prompt and what follows it. Only the positions from which a target is predicted reach the head; rows
    that agree with the unchanged text up to some position go on from there, with its keys and values.

    Attributes:
        text: The model and its tokenizer.
        runtime: How the model is run.
        no_reuse_reason: Why rows do not go on from the unchanged text; empty where they do.
        padding: What fills up rows of different lengths.
    """

    def __init__(self, text: TextModel, runtime: Runtime) -> None:
        inner = unwrapped(text.model)
        self.text, self.runtime = text, runtime
        self._begins = first_position(inner)
        self._reads_length = reads_length(inner.config)
        self._adds_tokens = adds_tokens(text.model)
        self.no_reuse_reason = self._reuse_obstacle(inner)
        self._cache_name = ""
        # Without anything that may be padded, only rows of one length share a batch.
        self.padding = {} if self._reads_length else text.padding
        self._proven = self._causal = False
        self._gradient = GradientCheck()

    @property
    def reuses(self) -> bool:
        """Whether rows go on from the unchanged text."""
        return not self.no_reuse_reason

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        """Run the rows of asks of one kind."""
        if not asks[0].keep and asks[0].of is None:
            return [self._scored(ask) for ask in asks]
        run = self._begun if asks[0].keep else self._differentiated
        return [answer for some in self._portioned(asks) for answer in run(some)]

    def check_causal(self, rows: Rows, targets: TokenTargets, outputs: Float[Tensor, "1 q k"]) -> None:
        """Once per model: whether what it says at a position is the same whatever comes behind.

        Raises:
            ModelError: if it is not.
        """
        if self._causal or self._reads_length or len(targets.at) < 2:
            return
        with torch.no_grad():
            first, _ = self._outputs(rows, targets.at[:1])
        expected = outputs[:, :1]
        if (first.cpu().float() - expected).abs().max() > self._tolerance * (1 + expected.abs().max()):
            raise ModelError(
                f"{type(unwrapped(self.text.model)).__name__} is no causal model: what it says at a position changes "
                "with what comes behind. A model of the BERT family needs is_decoder=True in its config. Dynamically "
                "quantised layers round all positions by one scale: load the model without quantisation."
            )
        self._causal = True

    def proven(self, unchanged: prefix.Unchanged, targets: TokenTargets) -> prefix.Unchanged:
        """Once per model: whether going on from the unchanged text gives what a whole run gives."""
        if not self.reuses or self._proven or length(unchanged.rows) < _PROVABLE:
            # Of a text this short nothing is proven, and little is saved.
            return unchanged if self.reuses and self._proven else replace(unchanged, layers=None)
        middle = int(targets.at[0]) // 2 + 1
        ids = unchanged.rows.fields["input_ids"].clone()
        ids[0, middle] = (ids[0, middle] + 1) % len(self.text.tokenizer)
        ask = Ask(unchanged.rows.put(input_ids=ids), replace(targets, unchanged=unchanged))
        whole = replace(ask, targets=replace(targets, unchanged=replace(unchanged, layers=None)))
        (long,) = self.answer([whole])
        try:
            (short,) = self.answer([ask])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._disable_reuse(f"its forward raises {type(error).__name__} where it goes on from a part of a text")
            return replace(unchanged, layers=None)
        scale = 1 + float(long.scores.abs().max())
        if (short.scores - long.scores).abs().max() > self._tolerance * scale:
            self._disable_reuse("what it says after the part of a text that was kept differs from a whole run")
        self._proven = True
        return unchanged if self.reuses else replace(unchanged, layers=None)

    @property
    def _tolerance(self) -> float:
        # Lengths differ besides, so that more of the sums are taken in another order.
        return max(1e-3, rounding(self.text.model, self.runtime.autocast))

    def _begun(self, asks: Sequence[Ask]) -> list[Answer]:
        """Unchanged texts: outputs at the targets' positions, keys and values."""
        out = []
        rows, at = self._joined(asks)
        with torch.no_grad():
            outputs, cache = self._recorded(rows, at) if self.reuses else (self._outputs(rows, at)[0], None)
        for number, ask in enumerate(asks):
            own = at_least_float32(outputs[number : number + 1, torch.searchsorted(at, _targets(ask).at)]).cpu()
            layers = None if cache is None else prefix.recorded(cache, number, length(ask.rows))
            out.append(Answer(_targets(ask).select(own), kept=(own, layers)))
        return out

    def _recorded(self, rows: Rows, at: Int[Tensor, " q"]) -> tuple[Float[Tensor, "p q k"], DynamicCache | None]:
        """Outputs, and the keys and values that the model wrote down; the first time under every name that may do."""
        names = [self._cache_name] if self._cache_name else self.text.parameters.caches
        for name in names:
            self._cache_name, cache = name, prefix.recording()
            try:
                outputs, _ = self._outputs(rows, at, cache=cache)
            except TypeError as error:
                # A forward that hands on what it does not know meets one that does not know it either.
                if name not in str(error):
                    raise
                continue
            if prefix.holds_all_positions(cache, length(rows)):
                return outputs, cache
        self._cache_name = ""
        self._disable_reuse(f"it wrote no keys and values into a cache given as {' or '.join(names) or 'an argument'}")
        return self._outputs(rows, at)[0], None

    def _reuse_obstacle(self, model: Any) -> str:
        """Why rows are run whole, as far as is known without a run; empty where they need not be."""
        if not self.runtime.reuse_prefix:
            return "reuse_prefix=False"
        if self._reads_length:
            return "the model turns positions by a factor that depends on the length of the longest text"
        if self._adds_tokens:
            return "an adapter puts tokens of its own before the text"
        if not prefix.can_be_cut(model):
            return "the model keeps a state of the text that cannot be cut"
        return ""

    def _disable_reuse(self, why: str) -> None:
        """Run rows whole from now on, and say so: this model was expected to do better."""
        self.no_reuse_reason = why
        name = type(unwrapped(self.text.model)).__name__
        warnings.warn(
            f"{name} does not reuse what rows share with the unchanged text, for {why}: scores are right, but methods "
            "that hide parts take several times as long.",
            stacklevel=2,
        )

    def _scored(self, ask: Ask) -> Answer:
        """Rows of one text, from the first position on at which any of them differs."""
        targets = _targets(ask)
        unchanged = targets.unchanged
        assert unchanged is not None
        begin, end = 0, int(targets.at[-1]) + 1
        if unchanged.layers is not None:
            begin = min(int(prefix.first_changes(ask.rows, unchanged.rows).min()), end - 1)
        at = targets.at[targets.at >= begin]
        each = unchanged.scores.expand(len(ask.rows), -1).clone()
        later = targets.places - 1 >= begin
        with torch.no_grad():
            found = []
            for rows in self._portions(ask.rows, len(at)):
                cache = None if not begin else prefix.going_on(unchanged.layers or (), begin)
                outputs, _ = self._outputs(rows, at, begin, cache)
                found.append(at_least_float32(targets.each(outputs, at)).cpu())
            each[:, later] = torch.cat(found)
        return Answer(targets.summed(each))

    def _differentiated(self, asks: Sequence[Ask]) -> list[Answer]:
        """Scores and their gradients for the token embeddings."""
        out: list[Answer] = []
        rows, at = self._joined(asks)
        leaf = rows.fields[EMBEDDINGS].detach().clone().requires_grad_()
        with torch.enable_grad():
            with guided(self.text.model) if asks[0].guided else nullcontext():
                moved = rows.put(**{EMBEDDINGS: leaf})
                outputs, head = with_gradients(lambda: self._outputs(moved, at, cut=True))
            count = max(len(ask.targets) for ask in asks)
            scores, places, begin = [], torch.zeros(len(rows), count, len(at), dtype=torch.bool), 0
            for ask in asks:
                targets, part = _targets(ask), slice(begin, begin := begin + len(ask.rows))
                own = torch.searchsorted(at, targets.at)
                found = targets.select(outputs[part][:, own])
                scores.append(nn.functional.pad(found, (0, count - len(targets))))
                places[part, : len(targets), own] = targets.used
            found = torch.cat(scores)
            if not found.requires_grad:
                raise not_differentiable()
            together = leaf.device.type != "cpu"
            grown = gradients(found, places.to(leaf.device), head, leaf, together)
        if not asks[0].guided and self._tolerance < 1e-2:
            one = slice(length(asks[0].rows))
            own = grown[:1, : len(asks[0].targets), one]
            self._gradient.check(partial(self._scores_of, asks[0]), leaf.detach()[:1, one], own)
        for ask, own, part in zip(asks, scores, grown.split([len(ask.rows) for ask in asks]), strict=True):
            count = len(ask.targets)
            out.append(Answer(at_least_float32(own[:, :count].detach()).cpu(), part[:, :count, : length(ask.rows)]))
        return out

    def _scores_of(self, ask: Ask, x: Float[Tensor, "p l d"]) -> Float[Tensor, "p t"]:
        """The scores of an ask's targets for other embeddings of its first row."""
        targets, one = _targets(ask), ask.rows.take(slice(1))
        outputs, _ = self._outputs(one.varied(len(x), **{EMBEDDINGS: x}), targets.at)
        return targets.select(outputs)

    def _joined(self, asks: Sequence[Ask]) -> tuple[Rows, Int[Tensor, " q"]]:
        """The rows of several texts, and all positions from which any of their targets is predicted."""
        at = torch.cat([_targets(ask).at for ask in asks]).unique()
        return Rows.join([ask.rows for ask in asks]), at

    def _portioned(self, asks: Sequence[Ask]) -> Iterator[Sequence[Ask]]:
        """Asks of several texts, no more at a time than their logits leave room for."""
        some: list[Ask] = []
        for ask in asks:
            tried = [*some, ask]
            positions = torch.cat([_targets(one).at for one in tried]).unique()
            size = sum(len(one.rows) for one in tried) * len(positions) * self.text.config.vocab_size
            if some and size > _LOGITS:
                yield some
                some = []
            some.append(ask)
        yield some

    def _portions(self, rows: Rows, positions: int) -> Iterator[Rows]:
        """Rows, no more at a time than their logits leave room for."""
        size = max(1, _LOGITS // (positions * self.text.config.vocab_size))
        for start in range(0, len(rows), size):
            yield rows.take(slice(start, start + size))

    def _outputs(
        self, rows: Rows, at: Int[Tensor, " q"], begin: int = 0, cache: Any = None, cut: bool = False
    ) -> tuple[Float[Tensor, "p q k"], Head]:
        """The explained outputs at some positions; positions before `begin` are in the cache."""
        text, end = self.text, int(at[-1]) + 1
        end = length(rows) if self._reads_length or (cache is not None and not begin) else end
        fields = rows.to(text.device).fields
        # A tokenizer may know no padding token; what stands in for it is hidden by the mask.
        ids = fields["input_ids"][:, begin:end].clamp(min=0)
        options: dict[str, Any] = {"attention_mask": fields["attention_mask"][:, :end]}
        if "position_ids" in text.parameters and not self._adds_tokens:
            positions = torch.arange(begin, end, device=text.device) + self._begins
            options["position_ids"] = positions.expand(len(ids), -1)
        if "use_cache" in text.parameters:
            options["use_cache"] = cache is not None
        if cache is not None:
            options[self._cache_name] = cache
        embeddings = fields.get(EMBEDDINGS)
        place = nullcontext() if embeddings is None else replaced(text.embedding, ids, embeddings[:, begin:end])
        module = unwrapped(text.model).get_output_embeddings()
        exact = precision(text.model, self.runtime.autocast, text.device)
        with exact, place, applied_at(module, (at - begin).to(text.device), end - begin, cut) as head:
            logits = text.model(input_ids=ids, **options).logits
        if head.below is None:
            # The model multiplies by its output embedding without calling it: logits of all positions are made.
            logits = head.narrowed(logits)
        shape = logits.shape
        return self.runtime.explained(at_least_float32(logits).flatten(0, 1)).reshape(*shape[:2], -1), head


def length(rows: Rows) -> int:
    """How many tokens rows have."""
    return rows.fields["input_ids"].shape[1]


def _targets(ask: Ask) -> TokenTargets:
    assert isinstance(ask.targets, TokenTargets)
    return ask.targets
