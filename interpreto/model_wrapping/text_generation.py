"""Causal language models of transformers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interpreto.errors import ModelError, TargetError
from interpreto.model_wrapping import continuations, prefix, prompts
from interpreto.model_wrapping.arrangement import Arrangement
from interpreto.model_wrapping.conversation import Answer, Ask, Plan, Settled
from interpreto.model_wrapping.embeddings import EMBEDDINGS, replaced
from interpreto.model_wrapping.head import Head, applied_at, gradients
from interpreto.model_wrapping.precision import precision
from interpreto.model_wrapping.rows import Rows
from interpreto.model_wrapping.runtime import Runtime, borrowed, provenance
from interpreto.model_wrapping.sample import TextSample
from interpreto.model_wrapping.targets import plain
from interpreto.model_wrapping.task import unwrapped
from interpreto.model_wrapping.text_model import TextModel, first_position, reads_length
from interpreto.model_wrapping.token_targets import TokenTargets
from interpreto.model_wrapping.wrapper import Wrapper

_LOGITS = 2**26
"""Numbers in the logits of one run, at most (256 MB)."""


@final
class TextGeneration(Wrapper):
    """A causal language model and its tokenizer.

    Rows are a prompt and what follows it. Only the positions from which a target is predicted reach the head. Rows
    that agree with the unchanged text up to some position go on from there, with its keys and values.

    Args:
        model: A `...ForCausalLM` model, possibly inside a shell of torch.compile or PEFT.
        processor: Its tokenizer, or a processor that has one.
        runtime: How the model is run.

    Raises:
        ModelError: if there is no tokenizer, or the model has an encoder.
    """

    task, modality, ragged = "text-generation", "text", True

    def __init__(self, model: nn.Module, processor: Any, runtime: Runtime) -> None:
        inner = unwrapped(model)
        if inner.config.is_encoder_decoder:
            raise ModelError(
                f"{type(inner).__name__} reads its prompt in an encoder; only models that read prompt and continuation "
                "as one text can be explained, not yet those with an encoder and a decoder."
            )
        if inner.get_output_embeddings() is None:
            raise ModelError(f"{type(inner).__name__} has no head over the vocabulary: it is no language model.")
        self.text = TextModel.of(model, processor, reads_padding=False)
        self.runtime = runtime
        self.no_gradients = self.text.no_gradients
        self._begins = first_position(inner)
        self._reads_length = reads_length(inner.config)
        self.reuses = runtime.reuse_prefix and prefix.can_be_cut(inner) and not self._reads_length
        # Without anything that may be padded, only rows of one length share a batch.
        self.padding = {} if self._reads_length else self.text.padding
        self._probed = self._causal = False

    @property
    def module(self) -> nn.Module:
        return self.text.model

    def is_one(self, inputs: Any) -> bool:
        return prompts.is_one_prompt(inputs)

    def split(self, inputs: Any) -> Iterator[Any]:
        return prompts.split_prompts(inputs)

    def prepare(self, raw: Any) -> TextSample:
        return prompts.encode(raw, self.text, self.padding)

    def plain(self, targets: Any) -> Any:
        # A run of ints is one continuation, not one target per sample.
        given = plain(targets)
        is_run = isinstance(given, list) and given and all(isinstance(token, int) for token in given)
        return tuple(given) if is_run else given

    def check_target(self, spec: Any, sample: Any = None) -> None:
        if sample is None:
            continuations.check(spec, self.text)
        elif (said := continuations.of(spec, self.text, sample)) is not None:
            prompts.continued(sample, said.ids, said.said, said.spans, self.text)

    def settle(self, sample: TextSample, spec: Any, seed: int) -> Plan[Settled]:
        said = continuations.of(spec, self.text, sample)
        if said is None:
            options = self.runtime.generation_kwargs or {}
            said = continuations.generated(self.text.model, self.text, sample, options, spec, seed)
        whole = sample if not len(said.ids) else prompts.continued(sample, said.ids, said.said, said.spans, self.text)
        targets = self._targets(said, _length(sample.rows))
        answer = yield Ask(whole.rows, targets, keep=True)
        outputs, layers = answer.kept
        if not outputs.isfinite().all():
            raise ModelError(
                "The model's outputs for the unchanged text are not finite: its weights hold NaN or overflow, so no "
                "attribution would mean anything."
            )
        self._check_causal(whole.rows, targets, outputs)
        unchanged = prefix.Unchanged(whole.rows, targets.each(outputs, targets.at)[0], layers)
        return Settled(whole, replace(targets, unchanged=self._proven(unchanged, targets)), outputs)

    def arrange(self, ask: Ask) -> Arrangement | None:
        targets = ask.targets
        if ask.of is not None or ask.keep or not isinstance(targets, TokenTargets) or targets.unchanged is None:
            return None
        # Positions are told apart by their tokens; rows of embeddings differ from each other in every one.
        return None if EMBEDDINGS in ask.rows.fields else prefix.arranged(ask.rows, targets.unchanged.rows)

    def answer(self, asks: Sequence[Ask]) -> list[Answer]:
        if not asks[0].keep and asks[0].of is None:
            return [self._scored(ask) for ask in asks]
        run = self._begun if asks[0].keep else self._differentiated
        return [answer for some in self._portioned(asks) for answer in run(some)]

    def borrowed(self) -> AbstractContextManager[None]:
        return borrowed(self.text.model, self.runtime)

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
        against = self.text.tokenizer.decode([token.against], clean_up_tokenization_spaces=False)
        return f"{said.said[start:end]} - {against}"

    def _check_causal(self, rows: Rows, targets: TokenTargets, outputs: Float[Tensor, "1 q k"]) -> None:
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
                "with what comes behind. A model of the BERT family needs is_decoder=True in its config."
            )
        self._causal = True

    def _proven(self, unchanged: prefix.Unchanged, targets: TokenTargets) -> prefix.Unchanged:
        """Once per model: whether going on from the unchanged text gives what a whole run gives."""
        if not self.reuses or self._probed or _length(unchanged.rows) < 3:
            return unchanged if self.reuses else replace(unchanged, layers=None)
        middle = int(targets.at[0]) // 2 + 1
        ids = unchanged.rows.fields["input_ids"].clone()
        ids[0, middle] = (ids[0, middle] + 1) % len(self.text.tokenizer)
        ask = Ask(unchanged.rows.put(input_ids=ids), replace(targets, unchanged=unchanged))
        whole = replace(ask, targets=replace(targets, unchanged=replace(unchanged, layers=None)))
        (short,), (long,) = (self.answer([one]) for one in (ask, whole))
        scale = 1 + float(long.scores.abs().max())
        self.reuses = bool((short.scores - long.scores).abs().max() <= self._tolerance * scale)
        self._probed = True
        return unchanged if self.reuses else replace(unchanged, layers=None)

    @property
    def _tolerance(self) -> float:
        half = self.runtime.autocast is not None or self.text.embedding.weight.dtype != torch.float32
        return 5e-2 if half else 1e-3

    def _begun(self, asks: Sequence[Ask]) -> list[Answer]:
        """Unchanged texts: outputs at the targets' positions, keys and values."""
        out = []
        rows, at = self._joined(asks)
        cache = prefix.recording() if self.reuses else None
        with torch.no_grad():
            outputs, _ = self._outputs(rows, at, cache=cache)
        for number, ask in enumerate(asks):
            own = outputs[number : number + 1, torch.searchsorted(at, _targets(ask).at)].float().cpu()
            layers = None if cache is None else prefix.recorded(cache, number, _length(ask.rows))
            out.append(Answer(_targets(ask).select(own), kept=(own, layers)))
        return out

    def _scored(self, ask: Ask) -> Answer:
        """Rows of one text, from the first position on at which any of them differs."""
        targets = _targets(ask)
        unchanged = targets.unchanged
        assert unchanged is not None
        begin, end = 0, int(targets.at[-1]) + 1
        if unchanged.layers is not None and EMBEDDINGS not in ask.rows.fields:
            begin = min(int(prefix.first_changes(ask.rows, unchanged.rows).min()), end - 1)
        at = targets.at[targets.at >= begin]
        each = unchanged.scores.expand(len(ask.rows), -1).clone()
        later = targets.places - 1 >= begin
        with torch.no_grad():
            found = []
            for rows in self._portions(ask.rows, len(at)):
                cache = None if not begin else prefix.going_on(unchanged.layers or (), begin)
                outputs, _ = self._outputs(rows, at, begin, cache)
                found.append(targets.each(outputs, at).float().cpu())
            each[:, later] = torch.cat(found)
        return Answer(targets.summed(each))

    def _differentiated(self, asks: Sequence[Ask]) -> list[Answer]:
        """Scores and their gradients for the token embeddings."""
        out: list[Answer] = []
        rows, at = self._joined(asks)
        leaf = rows.fields[EMBEDDINGS].detach().clone().requires_grad_()
        with torch.enable_grad():
            outputs, head = self._outputs(rows.put(**{EMBEDDINGS: leaf}), at, cut=True)
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
                raise ModelError("The score does not depend on the input in a way that PyTorch can differentiate.")
            together = leaf.device.type != "cpu"
            grown = gradients(found, places.to(leaf.device), head, leaf, together)
        for ask, own, part in zip(asks, scores, grown.split([len(ask.rows) for ask in asks]), strict=True):
            count = len(ask.targets)
            out.append(Answer(own[:, :count].detach().float().cpu(), part[:, :count, : _length(ask.rows)]))
        return out

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
        end = _length(rows) if self._reads_length or (cache is not None and not begin) else end
        fields = rows.to(text.device).fields
        # A tokenizer may know no padding token; what stands in for it is hidden by the mask.
        ids = fields["input_ids"][:, begin:end].clamp(min=0)
        options: dict[str, Any] = {"attention_mask": fields["attention_mask"][:, :end]}
        if "position_ids" in text.parameters:
            positions = torch.arange(begin, end, device=text.device) + self._begins
            options["position_ids"] = positions.expand(len(ids), -1)
        if "use_cache" in text.parameters:
            options["use_cache"] = cache is not None
        if cache is not None:
            options["past_key_values"] = cache
        embeddings = fields.get(EMBEDDINGS)
        place = nullcontext() if embeddings is None else replaced(text.embedding, ids, embeddings[:, begin:end])
        module = unwrapped(text.model).get_output_embeddings()
        exact = precision(text.model, self.runtime.autocast, text.device)
        with exact, place, applied_at(module, (at - begin).to(text.device), cut) as head:
            logits = text.model(input_ids=ids, **options).logits
        if head.below is None:
            raise ModelError(
                f"{type(unwrapped(text.model)).__name__} does not call its output embedding, so that its logits cannot "
                "be had at the asked positions alone."
            )
        shape = logits.shape
        return self.runtime.explained(logits.float().flatten(0, 1)).reshape(*shape[:2], -1), head


def _length(rows: Rows) -> int:
    return rows.fields["input_ids"].shape[1]


def _targets(ask: Ask) -> TokenTargets:
    assert isinstance(ask.targets, TokenTargets)
    return ask.targets
