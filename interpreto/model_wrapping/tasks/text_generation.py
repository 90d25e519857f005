"""Causal language models of transformers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, final

import torch
from torch import nn
from transformers import PreTrainedModel

from interpreto.errors import ModelError, TargetError
from interpreto.model_wrapping.arrangement import DeduplicatedRows
from interpreto.model_wrapping.capture_request import CaptureRequest
from interpreto.model_wrapping.execution.finite_checks import check_scores
from interpreto.model_wrapping.execution.model_pool import ModelPool
from interpreto.model_wrapping.inputs import prompt as prompts
from interpreto.model_wrapping.inputs.tokenizing import with_own_tokenizer
from interpreto.model_wrapping.language import continuations
from interpreto.model_wrapping.language import prefix_cache as prefix
from interpreto.model_wrapping.language.causal_lm import LanguageModel, length
from interpreto.model_wrapping.language.text_model import TextModel, adds_tokens
from interpreto.model_wrapping.language.token_targets import TokenTargets
from interpreto.model_wrapping.messages import ModelRequest, ModelResponse, PlanRun, ResolvedSample
from interpreto.model_wrapping.runtime import Runtime, provenance
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.targets import without_tensors
from interpreto.model_wrapping.tasks.detection import unwrapped
from interpreto.model_wrapping.wrapper import InferenceWrapper


@final
class TextGeneration(InferenceWrapper):
    """A causal language model and its tokenizer.

    Args:
        model: A `...ForCausalLM` model, possibly inside a shell of torch.compile or PEFT.
        processor: Its tokenizer, or a processor that has one.
        runtime: How the model is run.

    Raises:
        ModelError: if there is no tokenizer, or the model has an encoder.
    """

    task, modality, ragged = "text-generation", "text", True
    no_attention = (
        "the attention of generated words is not looked at yet. Methods that take gradients, and those that hide "
        "parts, explain language models."
    )

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        processor = with_own_tokenizer(processor)
        inner = unwrapped(model)
        if not isinstance(inner, PreTrainedModel):
            raise ModelError(
                f"{type(inner).__name__} is no language model of transformers, whose cache and head are needed here. "
                "The next token of any module from ids to logits over the vocabulary can be explained with "
                "task='text-classification'."
            )
        if inner.config.is_encoder_decoder:
            raise ModelError(
                f"{type(inner).__name__} reads its prompt in an encoder; only models that read prompt and continuation "
                "as one text can be explained, not yet those with an encoder and a decoder."
            )
        if inner.get_output_embeddings() is None:
            raise ModelError(f"{type(inner).__name__} has no head over the vocabulary: it is no language model.")
        # A logit is defined up to a constant, which every word that is taken away changes.
        runtime = replace(runtime, inference_mode=runtime.inference_mode or "log_softmax")
        self.text = TextModel.of(model, processor, reads_padding=False)
        self.processor, self.runtime = processor, runtime
        self.pool = ModelPool(self.text.model, self._on, runtime.device)
        self.no_gradients = self.text.no_gradients
        self.language = LanguageModel(self.text, runtime)

    @property
    def masked_by_attention(self) -> bool:
        # A recurrent state has read what the mask hides; without ids of their own, positions are counted by the mask.
        known = {"attention_mask", "position_ids"} <= self.text.parameters.names
        return known and prefix.can_crop_cache(unwrapped(self.text.model)) and not adds_tokens(self.text.model)

    @property
    def module(self) -> nn.Module:
        return self.text.model

    def is_one(self, inputs: Any) -> bool:
        return prompts.is_one_prompt(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return prompts.split_prompts(inputs)

    def prepare(self, raw: Any) -> TextSample:
        return prompts.encode(raw, self.text, self.language.padding, self.runtime.prepend_bos)

    def normalize_targets(self, targets: Any, count: int | None = None) -> Any:
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

    def check_target(self, spec: Any, sample: Any = None) -> None:
        if sample is None:
            continuations.check(spec, self.text)
        elif (said := continuations.of(spec, self.text, sample)) is not None:
            prompts.continued(sample, said.ids, said.said, said.spans, self.text)

    def resolve_targets(
        self, sample: TextSample, spec: Any, seed: int, capture: CaptureRequest | None = None
    ) -> PlanRun[ResolvedSample]:
        continuations.warn_of_seam(spec, sample)
        said = continuations.of(spec, self.text, sample)
        if said is None:
            options = self.runtime.generation_kwargs or {}
            said = continuations.generated(self.text.model, self.text, sample, options, spec, seed)
        whole = sample if not len(said.ids) else prompts.continued(sample, said.ids, said.said, said.spans, self.text)
        targets = self._targets(said, length(sample.rows))
        response = yield ModelRequest(whole.rows, targets, return_cache=True)
        outputs, layers = response.cache
        check_scores(targets.select(outputs), targets.names)
        self.language.check_causal(whole.rows, targets, outputs)
        unchanged = prefix.PrefixCache(whole.rows, targets.token_scores(outputs, targets.query_positions)[0], layers)
        return ResolvedSample(whole, replace(targets, prefix_cache=self.language.verified(unchanged, targets)), outputs)

    def deduplicate(self, request: ModelRequest) -> DeduplicatedRows | None:
        targets = request.targets
        if (
            request.gradient_field is not None
            or request.return_cache
            or not isinstance(targets, TokenTargets)
            or targets.prefix_cache is None
        ):
            return None
        return prefix.deduplicated(request.rows, targets.prefix_cache.rows)

    def respond(self, requests: Sequence[ModelRequest]) -> list[ModelResponse]:
        return self.language.respond(requests)

    def notes(self) -> dict[str, Any]:
        why = self.language.no_reuse_reason
        return {"prefix_reuse": f"off: {why}" if why else "on"}

    def provenance(self) -> dict[str, Any]:
        return provenance(self.text.model, self.text.config, self.runtime)

    def _targets(self, said: continuations.Continuation, begin: int) -> TokenTargets:
        if self.runtime.joint and any(map(callable, said.asked)):
            raise TargetError("joint=True explains the log-probability of a continuation; functions go without it.")
        # Functions of the next outputs all look at the place behind the prompt.
        last = len(said.ids)
        asked = [(min(place, last), token) for place, token in enumerate(said.asked) if token is not None]
        names = [self._name(said, place, token) for place, token in asked]
        count = len(asked)
        return TokenTargets(
            tuple(token for _, token in asked),
            torch.tensor([begin + place for place, _ in asked]),
            torch.zeros(count, dtype=torch.long) if self.runtime.joint else torch.arange(count),
            ("".join(names),) if self.runtime.joint else tuple(names),
            self.runtime.joint,
        )

    def _name(self, said: continuations.Continuation, place: int, token: Any) -> str:
        if callable(token):
            return getattr(token, "__name__", type(token).__name__)
        start, end = said.spans[place].tolist()
        if isinstance(token, int):
            return said.said[start:end]
        against = self.text.tokenizer.decode([token.foil], clean_up_tokenization_spaces=False)
        return f"{said.said[start:end]} - {against}"


def _as_continuation(given: Any) -> Any:
    """An entry of a list of targets: token ids as a tuple."""
    found = without_tensors(given)
    return tuple(found) if isinstance(found, list) else found
