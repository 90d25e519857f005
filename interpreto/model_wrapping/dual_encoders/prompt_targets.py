"""Prompts as targets, with which images are compared."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch

from interpreto.errors import InputError, TargetError
from interpreto.model_wrapping.dual_encoders.base import DualEncoder
from interpreto.model_wrapping.dual_encoders.encoded_targets import OtherSide
from interpreto.model_wrapping.inputs.text_checks import check_length
from interpreto.model_wrapping.inputs.text_encoding import rows_of
from interpreto.model_wrapping.rows import Rows


@final
@dataclass(frozen=True, eq=False)
class PromptTargets(OtherSide):
    """Prompts, encoded by the text tower.

    Attributes:
        dual: The model.
    """

    dual: DualEncoder
    expected = "prompts such as 'a photo of a cat', or their embeddings; a tuple is several targets"

    def check(self, target: object) -> None:
        if not isinstance(target, str):
            # A repr with a memory address says nothing to a user.
            shown = type(target).__name__ if "0x" in repr(target) else repr(target)
            raise TargetError(
                f"{shown} is not a prompt: pass {self.expected}. Images are targets where a text is explained: "
                "modality='text'."
            )
        if not target.strip():
            raise TargetError("A prompt is empty: there is nothing to compare the image with.")
        # Checked here, because a truncated prompt would silently be another target.
        try:
            check_length(len(self.dual.token_ids(target)), self.dual.require_text.limit, "use a shorter prompt")
        except InputError as error:
            shown = target if len(target) <= 60 else f"{target[:57]}..."
            raise TargetError(f"The prompt {shown!r} is too long. {error}") from None

    def key(self, target: object) -> Hashable:
        return target

    def name(self, target: Any) -> str:
        return target

    def rows(self, targets: Sequence[Any]) -> list[Rows]:
        padding = {"input_ids": self.dual.pad_token, "attention_mask": 0}
        return [rows_of({}, torch.tensor(self.dual.token_ids(target)), (), padding) for target in targets]
