"""A tokenizer in plain Python, which has no offsets of tokens."""

from transformers import PreTrainedTokenizer


class Letters(PreTrainedTokenizer):
    """Splits words and punctuation, and unknown words into letters; `swap` maps words to replacements."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 as transformers has it

    def __init__(self, vocabulary, swap=None):
        self.vocabulary, self.swap = vocabulary, swap or {}
        self.names = {number: token for token, number in vocabulary.items()}
        super().__init__(
            unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]"
        )

    @property
    def vocab_size(self):
        return len(self.vocabulary)

    def get_vocab(self):
        return dict(self.vocabulary)

    def _tokenize(self, text, **options):
        words = text.lower().replace(".", " .").split()
        swapped = [self.swap.get(word, word) for word in words]
        return [part for word in swapped for part in ([word] if word in self.vocabulary else list(word))]

    def _convert_token_to_id(self, token):
        return self.vocabulary.get(token, self.vocabulary["[UNK]"])

    def _convert_id_to_token(self, index):
        return self.names[index]

    def build_inputs_with_special_tokens(self, first, second=None):
        return [self.cls_token_id, *first, self.sep_token_id]

    def get_special_tokens_mask(self, first, second=None, already_has_special_tokens=False):
        if already_has_special_tokens:
            return [int(token in (self.cls_token_id, self.sep_token_id)) for token in first]
        return [1, *[0] * len(first), 1]
