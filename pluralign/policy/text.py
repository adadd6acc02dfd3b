"""How a prompt and a response become tokens: the only place that knows about templates, BOS and EOS.

With a chat template, a row is the template's own rendering of one user turn and one assistant turn, up to the
token that ends the turn. Without, it is `[BOS] prompt`, a space, `response`, EOS. Prompt and response are
tokenised apart, so that the boundary between them is exact; no padding token is ever part of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pluralign.errors import InputError

PROBE = "pluralignprobe"


@dataclass(frozen=True)
class Row:
    """A prompt and a response as tokens.

    Attributes:
        prompt: never empty.
        response: with the token that ends it, unless it was cut.
        cut: whether tokens were dropped from the end of the response.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    cut: bool = False


@dataclass(frozen=True, eq=False)
class Format:
    """The way in which one model reads prompts and writes responses.

    Attributes:
        tokenizer: of the model.
        before: what the template writes between its generation prompt and the response.
        end: tokens that end a response; the last of them is in `stops`.
        stops: tokens at which generation ends.
        trims: whether the template strips a response of space at its ends.
    """

    tokenizer: Any
    before: str
    end: tuple[int, ...]
    stops: tuple[int, ...]
    trims: bool = False

    @classmethod
    def of(cls, tokenizer: Any, stops: Sequence[int] = ()) -> "Format":
        """Read the format off a tokenizer.

        Args:
            tokenizer: of a causal language model, with or without a chat template.
            stops: further tokens at which the model ends, such as those of its generation config.

        Raises:
            InputError: there is no token to end a response with, or the template drops the response.
        """
        ends = tuple(dict.fromkeys(t for t in (tokenizer.eos_token_id, *stops) if t is not None))
        if not ends:
            raise InputError(
                "the tokenizer has no end-of-sequence token, so no response could ever end; set `eos_token` in its "
                "tokenizer_config.json."
            )
        if not tokenizer.chat_template:
            return cls(tokenizer, "", ends[:1], ends)
        asked = _chat(tokenizer, PROBE)
        answered = _chat(tokenizer, PROBE, PROBE)
        start = answered.rfind(PROBE)
        if answered.count(PROBE) != 2 or not answered.startswith(asked):
            raise InputError(
                "the chat template does not write an assistant turn as a continuation of its generation prompt: it "
                f"renders {answered!r}, after {asked!r}. Use a model whose template does, or remove the template."
            )
        after = _ids(tokenizer, answered[start + len(PROBE) :])
        last = next((i for i, token in enumerate(after) if token in ends), None)
        end = (*after, ends[0]) if last is None else after[: last + 1]
        trims = f" {PROBE} " not in _chat(tokenizer, "", f" {PROBE} ")
        return cls(tokenizer, answered[len(asked) : start], end, ends, trims)

    def prompt(self, text: str, limit: int) -> tuple[int, ...]:
        """Return the tokens of a prompt; one that is longer than `limit` loses words from its start.

        Raises:
            InputError: the template alone is longer than `limit`.
        """
        ids, words, dropped = self._render(text), _ids(self.tokenizer, text), 0
        while len(ids) > limit:
            dropped += len(ids) - limit
            if dropped >= len(words):
                raise InputError(
                    f"max_prompt_tokens is {limit}, but the chat template alone takes "
                    f"{len(self._render(''))} tokens; allow more."
                )
            ids = self._render(self.tokenizer.decode(words[dropped:]))
        return ids

    def row(self, prompt: tuple[int, ...], response: str, limit: int) -> Row:
        """Return a prompt's tokens with those of a response; one longer than `limit`, end included, is cut."""
        if self.tokenizer.chat_template:
            body = _continuation(self.tokenizer, "\n", self.before + (response.strip() if self.trims else response))
        else:
            body = _continuation(self.tokenizer, "a", f" {response}" if response else "")
        ids = (*body, *self.end)
        return Row(prompt, ids[:limit], len(ids) > limit)

    def text(self, ids: Sequence[int]) -> str:
        """Return what a model wrote, without special tokens and without space at its ends."""
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    def read(self, row: Row) -> str:
        """Return the text of a response, up to the token that ends it."""
        stop = next((k for k, token in enumerate(row.response) if token in self.stops), len(row.response))
        return self.text(row.response[:stop])

    def _render(self, text: str) -> tuple[int, ...]:
        if self.tokenizer.chat_template:
            return _ids(self.tokenizer, _chat(self.tokenizer, text))
        ids, bos = _ids(self.tokenizer, text), self.tokenizer.bos_token_id
        adds_bos = list(self.tokenizer("a").input_ids[:1]) == [bos]
        # An empty prompt without BOS would leave nothing to predict the first token from.
        return (int(bos), *ids) if bos is not None and adds_bos else ids or (self.end[-1],)


def _chat(tokenizer: Any, user: str, assistant: str | None = None) -> str:
    turns = [{"role": "user", "content": user}]
    if assistant is not None:
        turns.append({"role": "assistant", "content": assistant})
    # Responses that people judged hold no thinking; templates that know no such word pass over it.
    options = {"add_generation_prompt": assistant is None, "enable_thinking": False}
    return tokenizer.apply_chat_template(turns, tokenize=False, **options)


def _ids(tokenizer: Any, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text, add_special_tokens=False).input_ids)


def _continuation(tokenizer: Any, anchor: str, text: str) -> tuple[int, ...]:
    """Return the tokens of `text` where something stands before it.

    Tokenisers treat the start of a text apart (SentencePiece puts a space before it), so `text` is read behind an
    anchor, whose own tokens are then removed; unless the two merge, and `text` is read alone.
    """
    before, joint = _ids(tokenizer, anchor), _ids(tokenizer, anchor + text)
    return joint[len(before) :] if joint[: len(before)] == before else _ids(tokenizer, text)
