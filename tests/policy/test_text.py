"""Boundaries of prompts and responses, with templates made here."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from pluralign.errors import InputError
from pluralign.policy.text import Format

TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>"]


def byte_level(template=None, bos=False, pad: str | None = "<pad>") -> PreTrainedTokenizerFast:
    """One token per byte and per special token, so that every boundary can be read off."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(SPECIAL + alphabet)}, [], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token=pad,
        chat_template=template,
        additional_special_tokens=SPECIAL[4:],
        clean_up_tokenization_spaces=False,
    )


def written(form, prompt, response, prompt_limit=100, limit=100):
    row = form.row(form.prompt(prompt, prompt_limit), response, limit)
    return form.tokenizer.decode(row.prompt), form.tokenizer.decode(row.response), row


@pytest.mark.parametrize("pad", ["<pad>", "</s>", "<unk>", None])
@pytest.mark.parametrize(
    ("template", "bos", "prompt", "response"),
    [
        (TURNS, False, "<|user|>hi</s>\n<|assistant|>", "yes</s>"),
        (TURNS, True, "<|user|>hi</s>\n<|assistant|>", "yes</s>"),  # the template has the word on BOS ...
        ("<s>" + TURNS, True, "<s><|user|>hi</s>\n<|assistant|>", "yes</s>"),  # ... so here it is there once
        ("<s>" + TURNS, False, "<s><|user|>hi</s>\n<|assistant|>", "yes</s>"),
        (None, False, "hi", " yes</s>"),
        (None, True, "<s>hi", " yes</s>"),
    ],
)
def test_rows_are_what_the_template_writes_with_bos_at_most_once(template, bos, pad, prompt, response):
    form = Format.of(byte_level(template, bos, pad))
    got = written(form, "hi", "yes")
    assert got[:2] == (prompt, response)
    assert not got[2].cut
    assert form.tokenizer.pad_token_id not in got[2].prompt + got[2].response or pad == "</s>"


def test_what_a_template_puts_before_and_after_a_response_belongs_to_the_response():
    spaced = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %} {{ m.content }} {% else %}"
        "{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    form = Format.of(byte_level(spaced))
    assert written(form, "hi", "yes")[:2] == ("<|user|>hi<|assistant|>", " yes </s>")
    assert form.text(written(form, "hi", "yes")[2].response) == "yes"


REFUSING = "{% for m in messages if m.role == 'system' %}{{ raise_exception('no system turn') }}{% endfor %}" + TURNS
GENERAL = "{% if messages[0].role != 'system' %}<|system|>Be kind.</s>\n{% endif %}" + TURNS
TRIMMING = TURNS.replace("{{ m.content }}", "{{ m.content | trim }}")
# One that thinks unless it is told not to, and shows in each answer that it has not thought.
SWITCHED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}</s>\n{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SHOWN = SWITCHED.split("{% if add_generation_prompt %}")[0] + "{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("template", "prompt", "response"),
    [
        (REFUSING, "<|user|>hi</s>\n<|assistant|>", "yes</s>"),
        (GENERAL, "<|system|>Be kind.</s>\n<|user|>hi</s>\n<|assistant|>", "yes</s>"),
        (TRIMMING, "<|user|>hi</s>\n<|assistant|>", "yes</s>"),
        (SWITCHED, "<|user|>hi</s>\n<|assistant|><think>\n\n</think>\n\n", "yes</s>"),
        (SHOWN, "<|user|>hi</s>\n<|assistant|>", "<think>\n\n</think>\n\nyes</s>"),
    ],
)
def test_real_templates_have_their_way(template, bos, prompt, response):
    """A row is the template's rendering of both turns, up to the token that ends the second."""
    form = Format.of(byte_level(template, bos))
    assert written(form, "hi", "yes")[:2] == (prompt, response)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]
    whole = form.tokenizer.apply_chat_template(turns, tokenize=False)
    assert prompt + response + "\n" == whole


@pytest.mark.parametrize("template", [TURNS, TRIMMING])
def test_a_response_is_trimmed_if_the_template_trims_it(template):
    form = Format.of(byte_level(template))
    for response in (" yes ", "yes\n", "\tyes", "two  words"):
        turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": response}]
        whole = form.tokenizer.apply_chat_template(turns, tokenize=False)
        assert "".join(written(form, "hi", response)[:2]) + "\n" == whole


def test_a_template_that_always_opens_a_thought_is_refused():
    """What it would write after the thought is not what it shows of an answer, so no recorded answer can be scored."""
    with pytest.raises(InputError, match="does not write an assistant turn as a continuation"):
        Format.of(byte_level(TURNS.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}")))


def test_a_turn_may_end_in_a_token_that_is_not_eos():
    tokenizer = byte_level(TURNS.replace("</s>", "<pad>"), pad="<pad>")
    turn_end = tokenizer.pad_token_id
    assert written(Format.of(tokenizer, [turn_end]), "hi", "yes")[1] == "yes<pad>"
    assert Format.of(tokenizer, [turn_end]).stops == (tokenizer.eos_token_id, turn_end)
    assert written(Format.of(tokenizer), "hi", "yes")[1] == "yes<pad>\n</s>"  # without being told, EOS must end it


@pytest.mark.parametrize("template", [None, TURNS])
def test_an_empty_response_is_just_its_end(template):
    form = Format.of(byte_level(template))
    assert written(form, "hi", "")[1] == "</s>"
    assert written(form, "", "yes")[2].prompt  # there is always something to predict the first token from


@pytest.mark.parametrize("template", [None, "<s>" + TURNS])
def test_long_prompts_lose_their_start_and_keep_their_template(template):
    form = Format.of(byte_level(template, bos=template is None))
    for limit in (40, 45):
        text, _, row = written(form, "".join(chr(97 + i % 26) for i in range(90)), "yes", prompt_limit=limit)
        full = form.tokenizer.decode(form.prompt("".join(chr(97 + i % 26) for i in range(90)), 1000))
        assert len(row.prompt) == limit
        head = "<s><|user|>" if template else "<s>"
        assert text.startswith(head)
        assert full.endswith(text.removeprefix(head))


def test_a_prompt_limit_below_the_template_is_refused():
    with pytest.raises(InputError, match="max_prompt_tokens is 3, but the chat template alone takes"):
        Format.of(byte_level(TURNS)).prompt("hi", 3)


def test_long_responses_lose_their_end_and_say_so():
    form = Format.of(byte_level(TURNS))
    assert written(form, "hi", "abcdef", limit=7)[1] == "abcdef</s>"
    assert not written(form, "hi", "abcdef", limit=7)[2].cut
    assert written(form, "hi", "abcdef", limit=6)[1] == "abcdef"
    assert written(form, "hi", "abcdef", limit=6)[2].cut


def test_a_template_that_drops_the_assistant_and_a_tokenizer_without_an_end_are_refused():
    with pytest.raises(InputError, match="does not write an assistant turn"):
        Format.of(byte_level("{{ messages[0].content }}"))
    tokenizer = byte_level()
    tokenizer.eos_token = None
    with pytest.raises(InputError, match="no end-of-sequence token"):
        Format.of(tokenizer)


@pytest.mark.parametrize("name", ["stories260K", "stories15M"])
def test_a_sentencepiece_row_is_the_joint_text(real_models, name):
    tokenizer = AutoTokenizer.from_pretrained(real_models / name)
    form = Format.of(tokenizer)
    for response in ("there was a girl.", "\nNew line", "", "é ü 😀"):
        row = form.row(form.prompt("Once upon a time", 100), response, 100)
        joint = tokenizer("Once upon a time" + (f" {response}" if response else "")).input_ids
        assert list(row.prompt + row.response) == [*joint, tokenizer.eos_token_id]
        assert row.prompt.count(tokenizer.bos_token_id) == 1
        assert form.text(row.response) == response.strip()
