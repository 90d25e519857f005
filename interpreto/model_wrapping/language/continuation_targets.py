"""Targets of language models: tokens that the user passes or that the model generates."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch

from interpreto.errors import TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.finite_checks import check_scores
from interpreto.model_wrapping.inputs.prompt import append_continuation
from interpreto.model_wrapping.language import continuations
from interpreto.model_wrapping.language.causal_lm import CausalLMEngine, length
from interpreto.model_wrapping.language.continuations import Continuation
from interpreto.model_wrapping.language.prefix_cache import PrefixCache
from interpreto.model_wrapping.language.text_model import TextModel
from interpreto.model_wrapping.language.token_targets import TokenTargets
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.parts import TargetResolver
from interpreto.model_wrapping.runtime import Runtime
from interpreto.model_wrapping.sample import Sample, TextSample
from interpreto.model_wrapping.targets import SavedTarget, continuation_of, saved_by_name_error, to_python
from interpreto.type_guards import are_all, function_name


@final
@dataclass(frozen=True, eq=False)
class ContinuationResolver(TargetResolver):
    """Resolves targets of language models.

    They are a continuation of the prompt (generated, a string or token ids), a contrast of two continuations, or
    functions of the next output.

    Attributes:
        text_model: The model and its tokenizer.
        engine: Runs the model.
        runtime: The explained score, and the options of generation.
    """

    generated = True

    text_model: TextModel
    engine: CausalLMEngine
    runtime: Runtime

    def normalize(self, targets: object, count: int | None = None) -> Any:
        specs = to_python(targets)
        if not (isinstance(specs, list) and specs and are_all(int, specs)):
            # Entries stay as they are: a continuation may repeat a token, unlike the targets of a classifier.
            return list(map(_as_continuation, specs)) if isinstance(specs, list) else specs
        # A list of ints is one continuation, not one target per sample.
        if count is not None and count > 1 and len(specs) == count:
            shown = ", ".join(map(str, specs[:3])) + (", ..." if count > 3 else "")
            per_prompt = ", ".join(f"[{token}]" for token in specs[:3]) + (", ..." if count > 3 else "")
            raise TargetError(
                f"targets=[{shown}] for {count} prompts can mean one continuation of {count} tokens for every prompt, "
                f"or one token per prompt: pass [[{shown}]] * {count} for the first, [{per_prompt}] for the second."
            )
        return tuple(specs)

    def check(self, spec: object) -> None:
        continuations.check(spec, self.text_model)

    def check_with_sample(self, spec: object, sample: Sample) -> None:
        if (continuation := continuations.of(spec, self.text_model, _prompt(sample))) is not None:
            append_continuation(
                _prompt(sample), continuation.ids, continuation.text, continuation.spans, self.text_model
            )

    def from_saved(self, values: tuple[object, ...], names: tuple[str, ...]) -> Any:
        tokens = [token for value in values for token in (value if isinstance(value, tuple) else (value,))]
        if any(isinstance(token, SavedTarget | str) for token in tokens):
            raise saved_by_name_error(names)
        return continuation_of(tokens)

    def resolve(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        prompt = _prompt(sample)
        continuations.warn_of_seam(spec, prompt)
        continuation = continuations.of(spec, self.text_model, prompt)
        if continuation is None:
            options = self.runtime.generation_kwargs or {}
            continuation = continuations.generated(self.text_model.model, self.text_model, prompt, options, spec, seed)
        full_sample = sample
        if len(continuation.ids):
            full_prompt = append_continuation(
                prompt, continuation.ids, continuation.text, continuation.spans, self.text_model
            )
            full_sample = sample.with_prompt(full_prompt)
        targets = self._targets(continuation, length(prompt.rows))
        response: ModelResponse = yield ModelRequest(full_sample.rows, targets, return_outputs=True, return_cache=True)
        outputs = response.outputs
        assert outputs is not None
        check_scores(targets.select(outputs), targets.names)
        self.engine.check_causal(full_sample.rows, targets, outputs)
        cache = PrefixCache(full_sample.rows, targets.token_scores(outputs, targets.query_positions)[0], response.cache)
        return ResolvedSample(
            full_sample,
            replace(targets, prefix_cache=self.engine.verified(cache, targets)),
            # The targets refer to the cache; a second reference in the response would keep it in memory.
            replace(response, cache=None),
        )

    def _targets(self, continuation: Continuation, begin: int) -> TokenTargets:
        is_sequence = self.runtime.explains_sequence
        if is_sequence and any(map(callable, continuation.requested)):
            raise TargetError(
                "target_granularity='sequence' explains the log-probability of a continuation, and functions of the "
                "outputs have none: leave it out."
            )
        # Functions of the next output all read the output after the prompt, for they have no tokens of their own.
        n_tokens = len(continuation.ids)
        requested = [
            (min(index, n_tokens), token) for index, token in enumerate(continuation.requested) if token is not None
        ]
        names = [self._name(continuation, index, token) for index, token in requested]
        count = len(requested)
        return TokenTargets(
            tuple(token for _, token in requested),
            torch.tensor([begin + index for index, _ in requested]),
            # Of a sequence all tokens belong to target 0, so that their log-probabilities are summed.
            torch.zeros(count, dtype=torch.long) if is_sequence else torch.arange(count),
            ("".join(names),) if is_sequence else tuple(names),
            is_sequence,
        )

    def _name(self, continuation: Continuation, index: int, token: Any) -> str:
        if callable(token):
            return function_name(token)
        start, end = continuation.spans[index].tolist()
        if isinstance(token, int):
            return continuation.text[start:end]
        foil = self.text_model.tokenizer.decode([token.foil], clean_up_tokenization_spaces=False)
        return f"{continuation.text[start:end]} - {foil}"


def _prompt(sample: Sample) -> TextSample:
    assert sample.prompt is not None
    return sample.prompt


def _as_continuation(continuation: object) -> Any:
    """An entry of a list of targets, with token ids as a tuple."""
    spec = to_python(continuation)
    return tuple(spec) if isinstance(spec, list) else spec
