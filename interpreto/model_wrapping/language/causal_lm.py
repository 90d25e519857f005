"""The engine of causal language models: from rows to scores at the requested positions."""

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
from interpreto.model_wrapping.execution.gradient_check import GradientCheck, not_differentiable, with_gradients
from interpreto.model_wrapping.execution.guided_backprop import guided
from interpreto.model_wrapping.execution.precision import at_least_float32, precision
from interpreto.model_wrapping.language import prefix_cache as prefix
from interpreto.model_wrapping.language.lm_head import Head, gradients, restrict_head_to
from interpreto.model_wrapping.language.text_model import TextModel, adds_tokens, first_position, reads_length
from interpreto.model_wrapping.language.token_embeddings import replaced
from interpreto.model_wrapping.language.token_targets import TokenTargets
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.parts import Engine
from interpreto.model_wrapping.rows import DeduplicatedRows, Rows
from interpreto.model_wrapping.runtime import Runtime, provenance, rounding, unwrapped
from interpreto.model_wrapping.sample import EMBEDDINGS

_PROVABLE = 3
"""Tokens of a text on which it can be seen whether a model goes on from a part of it, at least."""
_LOGITS = 2**26
"""Numbers in the logits of one run, at most (256 MB)."""


@final
class CausalLMEngine(Engine):
    """Runs a causal language model on rows that are a prompt and its continuation.

    Only the positions from which a target is predicted reach the head. Rows that agree with the unperturbed text up to
    some position resume from there, with its keys and values.

    Args:
        text: The model and its tokenizer.
        runtime: How the model is run.

    Attributes:
        reuse_obstacle: Why rows do not resume from the unperturbed text; empty if they do.
        padding: The value that pads each field when rows are joined.
    """

    attention_obstacle = (
        "the attention of generated words is not captured yet. Methods that take gradients, and those that perturb the "
        "input, explain language models."
    )

    def __init__(self, text: TextModel, runtime: Runtime) -> None:
        inner = unwrapped(text.model)
        self.module, self.gradient_obstacle = text.model, text.gradient_obstacle
        self.text, self.runtime = text, runtime
        self._begins = first_position(inner)
        self._reads_length = reads_length(inner.config)
        self._adds_tokens = adds_tokens(text.model)
        self.reuse_obstacle = self._known_reuse_obstacle(inner)
        self._cache_name = ""
        # Without an argument that says what is padding, only rows of one length share a batch.
        self.padding = {} if self._reads_length else text.padding
        self._proven = self._causal = False
        self._gradient = GradientCheck()

    @property
    def reuses(self) -> bool:
        """Whether rows resume from the unperturbed text."""
        return not self.reuse_obstacle

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        if not requests[0].return_cache and requests[0].gradient_field is None:
            return [self._scored(request) for request in requests]
        run = self._begun if requests[0].return_cache else self._differentiated
        return [response for some in self._portioned(requests) for response in run(some)]

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        cache = None if request.return_cache else _targets(request).prefix_cache
        if request.gradient_field is not None or cache is None:
            return None
        return prefix.deduplicated(request.rows, cache.rows)

    def notes(self) -> dict[str, Any]:
        return {"prefix_reuse": f"off: {self.reuse_obstacle}" if self.reuse_obstacle else "on"}

    def provenance(self) -> dict[str, Any]:
        return provenance(self.text.model, self.text.config, self.runtime)

    def check_causal(self, rows: Rows, targets: TokenTargets, outputs: Float[Tensor, "1 q k"]) -> None:
        """Once per model: whether what it says at a position is the same whatever comes behind.

        Raises:
            ModelError: if it is not.
        """
        if self._causal or self._reads_length or len(targets.query_positions) < 2:
            return
        with torch.no_grad():
            first, _ = self._outputs(rows, targets.query_positions[:1])
        expected = outputs[:, :1]
        if (first.cpu().float() - expected).abs().max() > self._tolerance * (1 + expected.abs().max()):
            raise ModelError(
                f"{type(unwrapped(self.text.model)).__name__} is not a causal model: its output at a position changes "
                "with the tokens behind it. A model of the BERT family needs is_decoder=True in its config. "
                "Dynamically quantised layers round all positions by one scale: load the model without quantisation."
            )
        self._causal = True

    def verified(self, unchanged: prefix.PrefixCache, targets: TokenTargets) -> prefix.PrefixCache:
        """Once per model: whether going on from the unchanged text gives what a whole run gives."""
        if not self.reuses or self._proven or length(unchanged.rows) < _PROVABLE:
            # Of a text this short nothing is proven, and little is saved.
            return unchanged if self.reuses and self._proven else replace(unchanged, layers=None)
        middle = int(targets.query_positions[0]) // 2 + 1
        ids = unchanged.rows.fields["input_ids"].clone()
        ids[0, middle] = (ids[0, middle] + 1) % len(self.text.tokenizer)
        request = ModelRequest(unchanged.rows.replace(input_ids=ids), replace(targets, prefix_cache=unchanged))
        whole = replace(request, targets=replace(targets, prefix_cache=replace(unchanged, layers=None)))
        (long,) = self.respond([whole])
        try:
            (short,) = self.respond([request])
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

    def _begun(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Unchanged texts: outputs at the targets' positions, keys and values."""
        out = []
        rows, at = self._joined(requests)
        with torch.no_grad():
            outputs, cache = self._recorded(rows, at) if self.reuses else (self._outputs(rows, at)[0], None)
        for number, request in enumerate(requests):
            own = at_least_float32(
                outputs[number : number + 1, torch.searchsorted(at, _targets(request).query_positions)]
            ).cpu()
            layers = None if cache is None else prefix.read_cache(cache, number, length(request.rows))
            out.append(ModelResponse(_targets(request).select(own), outputs=own, cache=layers))
        return out

    def _recorded(self, rows: Rows, at: Int[Tensor, " q"]) -> tuple[Float[Tensor, "p q k"], DynamicCache | None]:
        """Outputs, and the keys and values that the model wrote down; the first time under every name that may do."""
        names = [self._cache_name] if self._cache_name else self.text.parameters.caches
        for name in names:
            self._cache_name, cache = name, prefix.new_cache()
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

    def _known_reuse_obstacle(self, model: Any) -> str:
        """Why rows are run whole, as far as is known without a run; empty where they need not be."""
        if not self.runtime.reuse_prefix:
            return "reuse_prefix=False"
        if self._reads_length:
            return "the model turns positions by a factor that depends on the length of the longest text"
        if self._adds_tokens:
            return "an adapter puts tokens of its own before the text"
        if not prefix.can_crop_cache(model):
            return "the model keeps a state of the text that cannot be cut"
        return ""

    def _disable_reuse(self, why: str) -> None:
        """Run rows whole from now on, and say so: this model was expected to do better."""
        self.reuse_obstacle = why
        name = type(unwrapped(self.text.model)).__name__
        warnings.warn(
            f"{name} does not reuse what rows share with the unchanged text, for {why}: scores are right, but methods "
            "that hide parts take several times as long.",
            stacklevel=2,
        )

    def _scored(self, request: ModelRequest) -> ModelResponse:
        """Rows of one text, from the first position on at which any of them differs."""
        targets = _targets(request)
        unchanged = targets.prefix_cache
        assert unchanged is not None
        begin, end = 0, int(targets.query_positions[-1]) + 1
        if unchanged.layers is not None:
            begin = min(int(prefix.first_differences(request.rows, unchanged.rows).min()), end - 1)
        at = targets.query_positions[targets.query_positions >= begin]
        each = unchanged.scores.expand(len(request.rows), -1).clone()
        later = targets.positions - 1 >= begin
        with torch.no_grad():
            found = []
            for rows in self._portions(request.rows, len(at)):
                cache = None if not begin else prefix.resume(unchanged.layers or (), begin)
                outputs, _ = self._outputs(rows, at, begin, cache)
                found.append(at_least_float32(targets.token_scores(outputs, at)).cpu())
            each[:, later] = torch.cat(found)
        return ModelResponse(targets.summed(each))

    def _differentiated(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Scores and their gradients for the token embeddings."""
        out: list[ModelResponse] = []
        rows, at = self._joined(requests)
        leaf = rows.fields[EMBEDDINGS].detach().clone().requires_grad_()
        with torch.enable_grad():
            with guided(self.text.model) if requests[0].guided else nullcontext():
                moved = rows.replace(**{EMBEDDINGS: leaf})
                outputs, head = with_gradients(lambda: self._outputs(moved, at, cut=True))
            count = max(len(request.targets) for request in requests)
            scores, places, begin = [], torch.zeros(len(rows), count, len(at), dtype=torch.bool), 0
            for request in requests:
                targets, part = _targets(request), slice(begin, begin := begin + len(request.rows))
                own = torch.searchsorted(at, targets.query_positions)
                found = targets.select(outputs[part][:, own])
                scores.append(nn.functional.pad(found, (0, count - len(targets))))
                places[part, : len(targets), own] = targets.target_uses_position
            found = torch.cat(scores)
            if not found.requires_grad:
                raise not_differentiable()
            in_one_pass = leaf.device.type != "cpu"
            grown = gradients(found, places.to(leaf.device), head, leaf, in_one_pass)
        if not requests[0].guided and self._tolerance < 1e-2:
            one = slice(length(requests[0].rows))
            own = grown[:1, : len(requests[0].targets), one]
            self._gradient.check(partial(self._scores_of, requests[0]), leaf.detach()[:1, one], own)
        for request, own, part in zip(
            requests, scores, grown.split([len(request.rows) for request in requests]), strict=True
        ):
            count = len(request.targets)
            out.append(
                ModelResponse(at_least_float32(own[:, :count].detach()).cpu(), part[:, :count, : length(request.rows)])
            )
        return out

    def _scores_of(self, request: ModelRequest, x: Float[Tensor, "p l d"]) -> Float[Tensor, "p t"]:
        """The scores of a request's targets for other embeddings of its first row."""
        targets, one = _targets(request), request.rows.take(slice(1))
        outputs, _ = self._outputs(one.expand(len(x), **{EMBEDDINGS: x}), targets.query_positions)
        return targets.select(outputs)

    def _joined(self, requests: Sequence[ModelRequest]) -> tuple[Rows, Int[Tensor, " q"]]:
        """The rows of several texts, and all positions from which any of their targets is predicted."""
        at = torch.cat([_targets(request).query_positions for request in requests]).unique()
        return Rows.join([request.rows for request in requests]), at

    def _portioned(self, requests: Sequence[ModelRequest]) -> Iterator[Sequence[ModelRequest]]:
        """Asks of several texts, no more at a time than their logits leave room for."""
        some: list[ModelRequest] = []
        for request in requests:
            tried = [*some, request]
            positions = torch.cat([_targets(one).query_positions for one in tried]).unique()
            size = sum(len(one.rows) for one in tried) * len(positions) * self.text.config.vocab_size
            if some and size > _LOGITS:
                yield some
                some = []
            some.append(request)
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
        with exact, place, restrict_head_to(module, (at - begin).to(text.device), end - begin, cut) as head:
            logits = text.model(input_ids=ids, **options).logits
        if head.below is None:
            # The model multiplies by its output embedding without calling it: logits of all positions are made.
            logits = head.narrowed(logits)
        shape = logits.shape
        return self.runtime.explained(at_least_float32(logits).flatten(0, 1)).reshape(*shape[:2], -1), head


def length(rows: Rows) -> int:
    """How many tokens rows have."""
    return rows.fields["input_ids"].shape[1]


def _targets(request: ModelRequest) -> TokenTargets:
    assert isinstance(request.targets, TokenTargets)
    return request.targets
