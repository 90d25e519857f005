"""Targets of language models: tokens that the user gives or that the model generates."""

from dataclasses import dataclass, replace
from typing import Any, final

import torch

from interpreto.errors import TargetError
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.finite_checks import check_scores
from interpreto.model_wrapping.inputs.prompt import continued
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
from interpreto.model_wrapping.targets import without_tensors


@final
@dataclass(frozen=True, eq=False)
class ContinuationResolver(TargetResolver):
    """Resolves continuations of a prompt: generated ones, texts, token ids, contrasts and functions of the next output.

    Attributes:
        text: The model and its tokenizer.
        engine: Runs the model.
        runtime: Which score is explained, and how the model generates.
    """

    text: TextModel
    engine: CausalLMEngine
    runtime: Runtime

    def normalize(self, targets: Any, count: int | None = None) -> Any:
        given = without_tensors(targets)
        if not (isinstance(given, list) and given and all(isinstance(token, int) for token in given)):
            # Tokens may come twice in a continuation, unlike classes among targets.
            return list(map(_as_continuation, given)) if isinstance(given, list) else given
        # A run of ints is one continuation, not one target per sample.
        if count is not None and count > 1 and len(given) == count:
            shown = ", ".join(map(str, given[:3])) + (", ..." if count > 3 else "")
            each = ", ".join(f"[{token}]" for token in given[:3]) + (", ..." if count > 3 else "")
            raise TargetError(
                f"targets=[{shown}] for {count} prompts can be one continuation of {count} tokens for every prompt, or "
                f"one token for each: write [[{shown}]] * {count} for the first, [{each}] for the second."
            )
        return tuple(given)

    def check(self, spec: Any, sample: Sample | None = None) -> None:
        if sample is None:
            continuations.check(spec, self.text)
        elif (given := continuations.of(spec, self.text, _prompt(sample))) is not None:
            continued(_prompt(sample), given.ids, given.said, given.spans, self.text)

    def resolve(
        self, sample: Sample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        prompt = _prompt(sample)
        continuations.warn_of_seam(spec, prompt)
        given = continuations.of(spec, self.text, prompt)
        if given is None:
            options = self.runtime.generation_kwargs or {}
            given = continuations.generated(self.text.model, self.text, prompt, options, spec, seed)
        whole = prompt if not len(given.ids) else continued(prompt, given.ids, given.said, given.spans, self.text)
        targets = self._targets(given, length(prompt.rows))
        response: ModelResponse = yield ModelRequest(whole.rows, targets, return_outputs=True, return_cache=True)
        outputs = response.outputs
        assert outputs is not None
        check_scores(targets.select(outputs), targets.names)
        self.engine.check_causal(whole.rows, targets, outputs)
        cache = PrefixCache(whole.rows, targets.token_scores(outputs, targets.query_positions)[0], response.cache)
        return ResolvedSample(
            whole,
            replace(targets, prefix_cache=self.engine.verified(cache, targets)),
            # The targets have the cache; a second reference would keep its memory.
            replace(response, cache=None),
        )

    def _targets(self, given: Continuation, begin: int) -> TokenTargets:
        sequence = self.runtime.explains_sequence
        if sequence and any(map(callable, given.asked)):
            raise TargetError(
                "target_granularity='sequence' explains the log-probability of a continuation, and functions of the "
                "outputs have none: leave it out."
            )
        # Functions of the next output all read the position behind the prompt.
        last = len(given.ids)
        requested = [(min(place, last), token) for place, token in enumerate(given.asked) if token is not None]
        names = [self._name(given, place, token) for place, token in requested]
        count = len(requested)
        return TokenTargets(
            tuple(token for _, token in requested),
            torch.tensor([begin + place for place, _ in requested]),
            torch.zeros(count, dtype=torch.long) if sequence else torch.arange(count),
            ("".join(names),) if sequence else tuple(names),
            sequence,
        )

    def _name(self, given: Continuation, place: int, token: Any) -> str:
        if callable(token):
            return getattr(token, "__name__", type(token).__name__)
        start, end = given.spans[place].tolist()
        if isinstance(token, int):
            return given.said[start:end]
        foil = self.text.tokenizer.decode([token.foil], clean_up_tokenization_spaces=False)
        return f"{given.said[start:end]} - {foil}"


def _prompt(sample: Sample) -> TextSample:
    assert isinstance(sample, TextSample)
    return sample


def _as_continuation(given: Any) -> Any:
    """An entry of a list of targets: token ids as a tuple."""
    found = without_tensors(given)
    return tuple(found) if isinstance(found, list) else found
