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
from interpreto.model_wrapping.execution.gradient_check import (
    GradientCheck,
    not_differentiable_error,
    run_with_gradients,
)
from interpreto.model_wrapping.execution.gradient_mode import without_gradients
from interpreto.model_wrapping.execution.guided_backprop import guided
from interpreto.model_wrapping.execution.precision import at_least_float32, precision
from interpreto.model_wrapping.language import prefix_cache as prefix
from interpreto.model_wrapping.language.lm_head import HeadInput, gradients, restrict_head_to
from interpreto.model_wrapping.language.text_model import TextModel, adds_tokens, first_position, reads_length
from interpreto.model_wrapping.language.token_embeddings import replaced
from interpreto.model_wrapping.language.token_targets import TokenTargets
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse
from interpreto.model_wrapping.parts import Engine
from interpreto.model_wrapping.rows import DeduplicatedRows, Rows
from interpreto.model_wrapping.runtime import Runtime, placement_of, provenance, relative_tolerance, unwrap_peft
from interpreto.model_wrapping.sample import EMBEDDINGS

_MIN_VERIFIABLE = 3
"""Tokens that a text must have to test on it whether a model can resume from a part of it."""
_MAX_LOGITS = 2**26
"""Numbers in the logits of one run (256 MB)."""
_TOKEN_FIELDS = ("input_ids", "attention_mask", "token_type_ids", EMBEDDINGS)
"""Fields with one entry per token. `Rows.padding` does not name them for models that read the length of a text."""


@final
class CausalLMEngine(Engine):
    """Runs a causal language model on rows that are a prompt and its continuation.

    Only the positions from which a target is predicted reach the head. Rows that agree with the unperturbed text up to
    some position resume from there, with its keys and values. Fields of rows that have no positions, such as the pixel
    values of an image-text model, are passed to the model as they are.

    Args:
        text_model: The model and its tokenizer.
        runtime: How the model is run.

    Attributes:
        reuse_obstacle: Why rows do not resume from the unperturbed text; empty if they do.
        padding: The value that pads each field when rows are joined.
    """

    attention_obstacle = (
        "the attention of generated words is not captured yet. Methods that take gradients, and those that perturb the "
        "input, explain language models."
    )

    def __init__(self, text_model: TextModel, runtime: Runtime) -> None:
        inner = unwrap_peft(text_model.model)
        self.module, self.gradient_obstacle = text_model.model, text_model.gradient_obstacle
        self.text_model, self.runtime = text_model, runtime
        self._first_position = first_position(inner)
        self._reads_length = reads_length(inner.config)
        self._adds_tokens = adds_tokens(text_model.model)
        self.reuse_obstacle = self._known_reuse_obstacle(inner)
        self._cache_name = ""
        # Without an argument that marks padding, only rows of one length can share a batch.
        self.padding = {} if self._reads_length else text_model.padding
        self._reuse_is_verified = self._is_causal = False
        self._gradient = GradientCheck()

    @property
    def reuses(self) -> bool:
        """Whether rows resume from the unperturbed text."""
        return not self.reuse_obstacle

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        if not requests[0].return_cache and requests[0].gradient_field is None:
            return [self._score(request) for request in requests]
        run = self._run_unperturbed if requests[0].return_cache else self._differentiate
        return [response for portion in self._portions_of_requests(requests) for response in run(portion)]

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        cache = None if request.return_cache else _targets(request).prefix_cache
        if request.gradient_field is not None or cache is None:
            return None
        return prefix.deduplicate(request.rows, cache.rows)

    def notes(self) -> dict[str, Any]:
        return {"prefix_reuse": f"off: {self.reuse_obstacle}" if self.reuse_obstacle else "on"}

    def provenance(self) -> dict[str, Any]:
        return provenance(self.text_model.model, self.text_model.config, self.runtime)

    def check_causal(self, rows: Rows, targets: TokenTargets, outputs: Float[Tensor, "1 q k"]) -> None:
        """Check once per model that its output at a position does not depend on later tokens.

        Raises:
            ModelError: if it does.
        """
        if self._is_causal or self._reads_length or len(targets.query_positions) < 2:
            return
        with without_gradients():
            # A run that ends at the first position.
            first, _ = self._outputs(rows, targets.query_positions[:1])
        expected = outputs[:, :1]
        if (first.cpu().float() - expected).abs().max() > self._tolerance * (1 + expected.abs().max()):
            raise ModelError(
                f"{type(unwrap_peft(self.text_model.model)).__name__} is not a causal model: its output at a position "
                "changes with the tokens behind it. A model of the BERT family needs is_decoder=True in its config. "
                "Dynamically quantised layers round all positions by one scale: load the model without quantisation."
            )
        self._is_causal = True

    def verified(self, cache: prefix.PrefixCache, targets: TokenTargets) -> prefix.PrefixCache:
        """The cache, without keys and values if resuming from it does not give the scores of a whole run.

        This is tested once per model, on a copy of the text in which one token differs.
        """
        without = replace(cache, layers=None)
        if not self.reuses or self._reuse_is_verified or length(cache.rows) < _MIN_VERIFIABLE:
            # A text this short is no test, and resuming from it saves little.
            return cache if self.reuses and self._reuse_is_verified else without
        middle = int(targets.query_positions[0]) // 2 + 1
        ids = cache.rows.fields["input_ids"].clone()
        ids[0, middle] = (ids[0, middle] + 1) % len(self.text_model.tokenizer)
        resumed = ModelRequest(cache.rows.replace(input_ids=ids), replace(targets, prefix_cache=cache))
        whole = replace(resumed, targets=replace(targets, prefix_cache=without))
        (expected,) = self.respond([whole])
        try:
            (response,) = self.respond([resumed])
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            self._disable_reuse(f"its forward raises {type(error).__name__} if it resumes from a part of a text")
            return without
        scale = 1 + float(expected.scores.abs().max())
        if (response.scores - expected.scores).abs().max() > self._tolerance * scale:
            self._disable_reuse("its scores after resuming from a part of a text differ from those of a whole run")
        self._reuse_is_verified = True
        return cache if self.reuses else without

    @property
    def _tolerance(self) -> float:
        # Runs of different lengths take sums in different orders, beyond the rounding of one run.
        return max(1e-3, relative_tolerance(self.text_model.model, self.runtime.autocast))

    def _run_unperturbed(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Unperturbed texts: outputs at the positions of their targets, keys and values."""
        responses = []
        rows, positions = self._join(requests)
        if self.reuses and _other_fields(rows):
            # A run that resumes behind an image would need other inputs than the tokens that follow.
            self.reuse_obstacle = "the model reads more than tokens"
        with without_gradients():
            outputs, cache = (
                self._outputs_and_cache(rows, positions) if self.reuses else (self._outputs(rows, positions)[0], None)
            )
        for number, request in enumerate(requests):
            columns = torch.searchsorted(positions, _targets(request).query_positions)
            of_request = at_least_float32(outputs[number : number + 1, columns]).cpu()
            layers = None if cache is None else prefix.read_cache(cache, number, length(request.rows))
            scores = _targets(request).select(of_request)
            responses.append(ModelResponse(scores, outputs=of_request, cache=layers))
        return responses

    def _outputs_and_cache(
        self, rows: Rows, positions: Int[Tensor, " q"]
    ) -> tuple[Float[Tensor, "p q k"], DynamicCache | None]:
        """Outputs, and the cache that the model filled; the first time it is passed under each possible name."""
        names = [self._cache_name] if self._cache_name else self.text_model.parameters.caches
        for name in names:
            self._cache_name, cache = name, prefix.new_cache()
            try:
                outputs, _ = self._outputs(rows, positions, cache=cache)
            except TypeError as error:
                # A forward that takes any keyword may pass this one on to a module that does not know it.
                if name not in str(error):
                    raise
                continue
            if prefix.holds_all_positions(cache, length(rows)):
                return outputs, cache
        self._cache_name = ""
        self._disable_reuse(f"it wrote no keys and values into a cache passed as {' or '.join(names) or 'an argument'}")
        return self._outputs(rows, positions)[0], None

    def _known_reuse_obstacle(self, model: object) -> str:
        """Why rows are run from the first position, as far as is known without a run; empty if they need not be."""
        if not self.runtime.reuse_prefix:
            return "reuse_prefix=False"
        if self._reads_length:
            return "the model rotates positions by a factor that depends on the length of the longest text"
        if self._adds_tokens:
            return "an adapter adds tokens of its own before the text"
        if not prefix.can_crop_cache(model):
            return "the model keeps a state of the text that cannot be cropped"
        return ""

    def _disable_reuse(self, reason: str) -> None:
        """Run rows from the first position from now on, with a warning: this model was expected to resume."""
        self.reuse_obstacle = reason
        name = type(unwrap_peft(self.text_model.model)).__name__
        warnings.warn(
            f"{name} does not reuse the prefix that rows share with the unperturbed text, because {reason}: scores are "
            "correct, but perturbation methods take several times as long.",
            stacklevel=2,
        )

    def _score(self, request: ModelRequest) -> ModelResponse:
        """Scores of rows of one text, run from the first position at which any of them differs."""
        targets = _targets(request)
        cache = targets.prefix_cache
        assert cache is not None
        begin, end = 0, int(targets.query_positions[-1]) + 1
        if cache.layers is not None:
            begin = min(int(request.rows.first_difference(cache.rows).min()), end - 1)
        positions = targets.query_positions[targets.query_positions >= begin]
        # Tokens that are predicted before the rows differ keep the score of the unperturbed text.
        token_scores = cache.scores.expand(len(request.rows), -1).clone()
        is_later = targets.positions - 1 >= begin
        with without_gradients():
            portions = []
            for rows in self._portions_of_rows(request.rows, len(positions)):
                past = None if not begin else prefix.resume(cache.layers or (), begin)
                outputs, _ = self._outputs(rows, positions, begin, past)
                portions.append(at_least_float32(targets.token_scores(outputs, positions)).cpu())
            token_scores[:, is_later] = torch.cat(portions)
        return ModelResponse(targets.summed(token_scores))

    def _differentiate(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        """Scores and their gradients for a field of the rows: token embeddings, or pixel values."""
        rows, positions = self._join(requests)
        field = requests[0].gradient_field
        assert field is not None
        leaf = rows.fields[field].detach().clone().requires_grad_()
        with torch.enable_grad():
            with guided(self.text_model.model) if requests[0].guided else nullcontext():
                with_leaf = rows.replace(**{field: leaf})
                outputs, head = run_with_gradients(lambda: self._outputs(with_leaf, positions, cut=True))
            n_targets = max(len(request.targets) for request in requests)
            scores, begin = [], 0
            uses_position = torch.zeros(len(rows), n_targets, len(positions), dtype=torch.bool)
            for request in requests:
                targets, part = _targets(request), slice(begin, begin := begin + len(request.rows))
                columns = torch.searchsorted(positions, targets.query_positions)
                of_request = targets.select(outputs[part][:, columns])
                scores.append(nn.functional.pad(of_request, (0, n_targets - len(targets))))
                uses_position[part, : len(targets), columns] = targets.target_uses_position
            all_scores = torch.cat(scores)
            if not all_scores.requires_grad:
                raise not_differentiable_error()
            # On a CPU, one backward pass per target is faster than a batched one.
            in_one_pass = leaf.device.type != "cpu"
            all_gradients = gradients(all_scores, uses_position.to(leaf.device), head, leaf, in_one_pass)
        # Rows of a request end at its own length, if the field has positions.
        ends = [length(request.rows) if field in rows.padding else None for request in requests]
        if not requests[0].guided and self._tolerance < 1e-2:
            first, end = requests[0], ends[0]
            gradient = all_gradients[:1, : len(first.targets), :end]
            self._gradient.check(partial(self._scores_at, first, field), leaf.detach()[:1, :end], gradient)
        sizes = [len(request.rows) for request in requests]
        return [
            ModelResponse(
                at_least_float32(of_request[:, : len(request.targets)].detach()).cpu(),
                part[:, : len(request.targets), :end],
            )
            for request, of_request, part, end in zip(requests, scores, all_gradients.split(sizes), ends, strict=True)
        ]

    def _scores_at(self, request: ModelRequest, field: str, points: Float[Tensor, "p *s"]) -> Float[Tensor, "p t"]:
        """The scores of a request's targets for other values of a field of its first row."""
        targets, row = _targets(request), request.rows.take(slice(1))
        outputs, _ = self._outputs(row.expand(len(points), **{field: points}), targets.query_positions)
        return targets.select(outputs)

    def _join(self, requests: Sequence[ModelRequest]) -> tuple[Rows, Int[Tensor, " q"]]:
        """The rows of several texts, and all positions from which any of their targets is predicted."""
        positions = torch.cat([_targets(request).query_positions for request in requests]).unique()
        return Rows.join([request.rows for request in requests]), positions

    def _portions_of_requests(self, requests: Sequence[ModelRequest]) -> Iterator[Sequence[ModelRequest]]:
        """Requests of several texts, as many at a time as the memory for logits allows."""
        portion: list[ModelRequest] = []
        for request in requests:
            candidate = [*portion, request]
            positions = torch.cat([_targets(one).query_positions for one in candidate]).unique()
            size = sum(len(one.rows) for one in candidate) * len(positions) * self.text_model.config.vocab_size
            if portion and size > _MAX_LOGITS:
                yield portion
                portion = []
            portion.append(request)
        yield portion

    def _portions_of_rows(self, rows: Rows, n_positions: int) -> Iterator[Rows]:
        """Rows, as many at a time as the memory for logits allows."""
        size = max(1, _MAX_LOGITS // (n_positions * self.text_model.config.vocab_size))
        for start in range(0, len(rows), size):
            yield rows.take(slice(start, start + size))

    def _outputs(
        self, rows: Rows, positions: Int[Tensor, " q"], begin: int = 0, cache: object = None, cut: bool = False
    ) -> tuple[Float[Tensor, "p q k"], HeadInput]:
        """The explained outputs at some positions; positions before `begin` are in the cache."""
        text_model, end = self.text_model, int(positions[-1]) + 1
        # A cache that is being filled needs all positions, and so does a factor that depends on the length.
        end = length(rows) if self._reads_length or (cache is not None and not begin) else end
        on_device = rows.to(text_model.device)
        fields = on_device.fields
        # Padding may have a negative id if the tokenizer has no padding token; the mask hides what replaces it.
        ids = fields["input_ids"][:, begin:end].clamp(min=0)
        options: dict[str, Any] = {"attention_mask": fields["attention_mask"][:, :end]}
        if "position_ids" in text_model.parameters and not self._adds_tokens:
            position_ids = torch.arange(begin, end, device=text_model.device) + self._first_position
            options["position_ids"] = position_ids.expand(len(ids), -1)
        if "use_cache" in text_model.parameters:
            options["use_cache"] = cache is not None
        if cache is not None:
            options[self._cache_name] = cache
        if others := _other_fields(on_device):
            dtype = placement_of(text_model.model)[1]
            options |= {name: t.to(dtype) if t.is_floating_point() else t for name, t in others.items()}
        embeddings = fields.get(EMBEDDINGS)
        lookup = nullcontext() if embeddings is None else replaced(text_model.embedding, ids, embeddings[:, begin:end])
        module = unwrap_peft(text_model.model).get_output_embeddings()
        exact = precision(text_model.model, self.runtime.autocast, text_model.device)
        with (
            exact,
            lookup,
            restrict_head_to(module, (positions - begin).to(text_model.device), end - begin, cut) as head,
        ):
            logits = text_model.model(input_ids=ids, **options).logits
        if head.hidden is None:
            # The model multiplies by its output embedding without calling it, and returns logits of all positions.
            logits = head.select_positions(logits)
        shape = logits.shape
        return self.runtime.explained(at_least_float32(logits).flatten(0, 1)).reshape(*shape[:2], -1), head


def length(rows: Rows) -> int:
    """Number of tokens of rows."""
    return rows.fields["input_ids"].shape[1]


def _other_fields(rows: Rows) -> dict[str, Tensor]:
    """Fields without positions, which the model gets beside the tokens, such as pixel values."""
    return {name: tensor for name, tensor in rows.fields.items() if name not in _TOKEN_FIELDS}


def _targets(request: ModelRequest) -> TokenTargets:
    assert isinstance(request.targets, TokenTargets)
    return request.targets
