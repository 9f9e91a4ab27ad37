"""What models write beside their answer never becomes part of a text."""

from __future__ import annotations

import json

import pytest

from kb_builder.parse.answers import Item, parse_answer, read_answer

TEXT = "A dog barks at night."


def parsed(content: object, *, finish: str = "stop", several: bool = False, **message: object) -> list[Item]:
    body = {"choices": [{"finish_reason": finish, "message": {"content": content, **message}}]}
    return list(parse_answer(read_answer(json.dumps(body)), several=several, asked='about "dog"'))


THOUGHTS = [
    "<think>It is a dog.</think>{}",
    "<think>It is a dog.\n\n</think>\n\n{}",
    "It is a dog.</think>{}",
    "<think>a<think>b</think>c</think>{}",
    "<think>What does <think> mean?</think>{}",
    "<thinking>It is.</thinking>{}",
    "<thought>It is.</thought>{}",
    "<reasoning>It is.</reasoning>{}",
    "<reflection>It is.</reflection>{}",
    "<seed:think>It is.</seed:think>{}",
    "<antThinking>It is.</antThinking>{}",
    "<scratchpad>It is.</scratchpad>{}",
    "[THINK]It is.[/THINK]{}",
    "◁think▷It is.◁/think▷{}",
    "<|begin_of_thought|>It is.<|end_of_thought|><|begin_of_solution|>{}<|end_of_solution|>",
    "<|START_THINKING|>It is.<|END_THINKING|><|START_RESPONSE|>{}<|END_RESPONSE|>",
    "<|inner_prefix|>It is.<|inner_suffix|>{}",
    "<|channel|>analysis<|message|>It is.<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>",
    "<|channel|>analysis<|message|>It is.<|end|><|channel|>final<|message|>{}",
    "<|channel>thought\nIt is a dog.<channel|>{}<turn|>",
    "analysisThe user wants a dog.assistantfinal{}",
    "Here is my thought process: It is a dog.\n\nHere is my response: {}",
    "<SUMMARY>It is.</SUMMARY><REASONING>So.</REASONING><CONCLUSION>{}</CONCLUSION>",
    "A draft of a dog.\n\nFinal answer: {}",
    "**Final Description:** {}",
]  # fmt: skip
ENDS = [
    "<|im_end|>", "<|im_end|>\n", "<|eot_id|>", "<|eom_id|>", "</s>", "<end_of_turn>", "<|endoftext|>",
    "<|end|>", "[/INST]", "<|END_OF_TURN_TOKEN|>", "<｜end▁of▁sentence｜>", "<|end▁of▁sentence|>", "<eos>",
    "<|return|>", "<|end_of_text|>", "<| im_end |>", "<|IM_END|>", "<im_end>", "</im_end>", "<|/im_end|>",
    "<||im_end||>", "<|im\\_end|>", "&lt;|im_end|&gt;", "<end_of_utterance>", "<|eot|>", "<|end_of_role|>",
    "<|im_en", "<|eot_id|", "</s", "|im_end|", "###", "\n###", "< | im_end | >", "<0x0A>", "<0x0A><0x0A></s>",
]  # fmt: skip
NEXT_TURNS = [
    "\nUser: And a cat?", "\n\nHuman: And a cat?", "\nAssistant: A cat meows at night.",
    " User: And a cat?", "Human: And a cat?", "<|user|>And a cat?", "<|im_start|>user\nAnd a cat?",
    "\n### Instruction:\nAnd a cat?", "\n\n### Input\nAnd a cat?", "\n## User:\nAnd a cat?",
    "\nQ: And a cat?", "\nQuestion: And a cat?", "<start_of_turn>user\nAnd?", "<｜User｜>And a cat?",
    "</s><s>[INST] And a cat? [/INST] A cat meows.", "\n<human>: And a cat?", "\nOutput: A cat meows.",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd a cat?",
    "<|im_end|>\n<|im_start|>assistant\nA cat meows at night.",
    "<|start_of_role|>user<|end_of_role|>And a cat?", "\n[USER]: And a cat?", "\n**User:** And a cat?",
]  # fmt: skip
AROUND = [
    "<answer>{}</answer>", "I think.\n<answer>{}</answer>\nDone.", "{}</answer>", "<answer>{}",
    "<output>{}</output>", "<response>{}</response>", "<final>{}</final>",
    "<final_answer>{}</final_answer>", "<result>{}</result>", "<|begin_of_box|>{}<|end_of_box|>",
    "\\boxed{{{}}}", "$\\boxed{{{}}}$", "\\boxed{{\\text{{{}}}}}", "\\[ {} \\]",
    "<description>{}</description>", "<text>{}</text>", "<s>{}</s>", "<|begin_of_text|>{}",
    "<|assistant|>{}", "<|assistant|>\n{}",
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "<start_of_turn>model\n{}<end_of_turn>", "<s>[INST] Say it. [/INST] {}</s>",
    "<<SYS>>Be brief.<</SYS>>{}", "<|user|>Say it.<|assistant|>{}", "User: Say it.\nAssistant: {}",
    "Assistant: {}", "assistant\n\n{}", "### Response:\n{}", "Answer: {}", "<｜Assistant｜>{}",
    "<tool_call>{{\"name\": \"f\"}}</tool_call>{}", "{}<tool_call>{{\"name\": \"f\"}}</tool_call>",
    "{}[TOOL_CALLS][{{}}]", "<function_calls><invoke name=\"f\">x</invoke></function_calls>{}",
    "<function=f>{{}}</function>{}", "{}<|python_tag|>f()", "<｜tool▁calls▁begin｜>f<｜tool▁calls▁end｜>{}",
    "/no_think {}", "{} /no_think", "<b>{}</b>", "<p>{}</p>", "<div class=\"x\">{}</div>",
    "<ul><li>{}</li></ul>", "<!-- one -->{}", "```\n{}\n```", "```text\n{}\n```", "**{}**", "*{}*",
    "# Dog\n\n{}", "**Dog**\n\n{}", "**Description:** {}", "Description: {}",
    "title: Dog\ndescription: {}", "> {}", "- {}", "1. {}", "`{}`", "\"{}\"", "“{}”", "'{}'", "Sure! {}",
    "Sure! Here is one sentence: {}", "I'd be happy to help! {}", "Here's a sentence:\n\n{}",
    "{}\n\n(5 words)", "{} (5 words)", "{}\n\nNote: it has five words.", "{}\n\nI hope this helps!",
    "{}\n---\nLet me know.", "\ufeff{}", "\u200b{}\u200b", "{{\"description\": \"{}\"}}",
    "```json\n{{\"description\": \"{}\"}}\n```", "[\"{}\"]", "| Text |\n|---|\n| {} |",
    "Okay, the user wants a sentence about a dog.\n\n{}", "Title: Dogs\n\n{}", "Dog\n\n{}",
    "Draft: A dog.\nRevised: {}", "{}\n\n#dog #pets", "{}\nEND", "{}\n[END OF TEXT]", "{} <END>",
    "{}\n\nDescription 2: A cat meows.", "{} [1][2]", "{}<sup>[1]</sup>", "({})", "[{}]", "«{}»", "{}*",
    "{} ```", "{}<", "_{}_", "description: |\n  {}", "![dog](https://a.b/c.png) {}",
    "{} ([a](https://b.c))", "<details><summary>Thinking</summary>hm</details>{}",
    "<unused94>thought\nhm<unused95>{}", "{}<|fim_middle|>def f():", "<|reserved_special_token_1|>{}",
    "▁{}", "\u3164{}\u2800", "{}\n\n[^1]: A book.", "{} [This text has 5 words.]",
    "{} Let me know if you need more.", "{} I hope this helps!", "Option 1: {}", "**Version 2:** {}",
    "Description - {}", "\\t{}\\r\\n", "„{}“", "「{}」",
    "${}$", "$${}$$", "{} EOT", "{}\nEOS", "‹{}›", "=={}==", "||{}||", "| {} |",
    "<image>\n{}", "{}【4:0†source】", "{} \ue200cite\ue202turn0search0\ue201",
]  # fmt: skip


@pytest.mark.parametrize("form", [*THOUGHTS, *AROUND])
def test_what_stands_around_a_text_is_taken_off(form: str) -> None:
    """Reasoning, channels, tags, turns, calls, labels, HTML and Markdown: what remains is the text."""
    assert [item.text for item in parsed(form.format(TEXT))] == [TEXT]


@pytest.mark.parametrize("end", [*ENDS, *NEXT_TURNS])
def test_a_text_ends_where_the_turn_ends(end: str) -> None:
    """End-of-turn marks in any spelling go, and with them whatever the next speaker says."""
    assert [item.text for item in parsed(TEXT + end)] == [TEXT]
    [item] = parsed(TEXT[:-1] + end)
    assert item.text in {TEXT, None}


@pytest.mark.parametrize("end", ["<|im_end|>\n<|im_start|>user\nMore of", "\nUser: more of"])
def test_an_answer_that_ran_on_was_not_cut_off(end: str) -> None:
    """It used up its tokens, but behind the end of its turn."""
    assert [item.text for item in parsed(TEXT[:-1] + end, finish="length")] == [TEXT]


@pytest.mark.parametrize("mark", [*ENDS[:20], "</answer>", "<b>", "<br>", "&amp;nbsp;"])
def test_marks_inside_a_list_concern_their_text_alone(mark: str) -> None:
    """The other texts of the list stay as they are."""
    content = json.dumps({"descriptions": [TEXT + mark, "The dog sleeps all day long."]})
    assert [item.text for item in parsed(content, several=True)] == [TEXT, "The dog sleeps all day long."]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<think>It goes on and on until the tokens are used up.", "holds reasoning, and no text (stop)"),
        ("analysisWe need to write about a dog. It barks at night.", "holds reasoning or marks, and no text"),
        ("<tool_call>{}</tool_call>", "holds a tool call, and no text"),
        ("<|im_end|>", "holds marks, and no text"),
        ("A dog amp; a cat bark at night.", "holds 'amp;', which is no part of a text"),
        ("The dogâ€™s bark is loud at night.", "holds 'â€', which is no part of a text"),
        ("See https://a.b/dog.png for a dog.", "holds 'https://', which is no part of a text"),
        ("A dog weighs $\\approx 5$ kg here.", "holds '\\\\app', which is no part of a text"),
        ("A dog has [number] legs and a tail.", "holds '[number]', which is no part of a text"),
        ("A dog weighs <0xC3> at night here.", "holds '<0x', which is no part of a text"),
        (f'1,"{TEXT}"', "holds '1,\"', which is no part of a text"),
        (f'f"{TEXT}"', "holds 'f\"', which is no part of a text"),
        (f"print('{TEXT}')", 'holds "print(\'", which is no part of a text'),
        ("We need to write a sentence about a dog.", "speaks of the task: 'we need to write'"),
        ("Wait, I should make it one sentence. A dog barks.", "speaks of the task: 'i should make'"),
        ("Wait, maybe it is shorter. A dog barks at night.", "speaks of the task: 'wait, maybe'"),
        ("We need one sentence. A dog barks at night.", "speaks of the task: 'we need one sentence'"),
        ("A dog has a wet nose and\\na long tail.", "holds '\\\\n', which is no part of a text"),
        (f"{TEXT} <unk>", "holds '<unk>', which is no part of a text"),
        ("A dog <verb> at night in town.", "holds '<verb>', which is no part of a text"),
        ("A dog in [Your City] barks at night.", "holds '[Your City]', which is no part of a text"),
        (f'{{"description": "{TEXT}', "holds JSON that is broken"),
        (f'["{TEXT}", "It sleeps all day."]', "holds 2 texts where one was asked for"),
        ("A dog\x1b[1m barks at night.", "holds the control character U+001B"),
        ("A dog\x85 barks at night.", "holds the control character U+0085"),
        ("A dog\x1f barks at night.", "holds the control character U+001F"),
        ("A dog \x00barks at night.", "holds the control character U+0000"),
        ("A dog&#27; barks at night &#x1b;.", None),  # HTML has no such characters: nothing stands for them
        ("A d\ufffdg barks at night.", "holds U+FFFD: a character was lost on the way"),
        ("A dog \ud83d barks at night.", "holds U+FFFD: a character was lost on the way"),
        ("A dog \u202ebarks at night.", "holds U+202E, which turns the direction of what follows"),
        ("A dog \u2066barks at night.", "holds U+2066, which turns the direction of what follows"),
        ("A dog \ue000barks at night.", "holds the private character U+E000"),
    ],
)
def test_what_cannot_be_taken_off_is_rejected_with_its_reason(content: str, reason: str | None) -> None:
    """One item without a text; what it keeps of the answer holds no control character."""
    [item] = parsed(content)
    assert item.reason == reason
    assert (item.text is None) == (reason is not None)
    assert item.said.isprintable() and "\ufffd" not in item.said


def test_a_control_character_rejects_its_own_text_only() -> None:
    """Of a list, the others stay."""
    content = json.dumps(
        {"descriptions": [TEXT, "A dog\x1b[1m barks at night.", "A dog \u202abarks at night."]}
    )
    items = parsed(content, several=True)
    assert [item.text for item in items] == [TEXT, None, None]
    assert items[1].said == r"A dog\x1b[1m barks at night."


@pytest.mark.parametrize(
    ("content", "text", "reason"),
    [
        ([{"type": "thinking", "thinking": [{"type": "text"}]}, {"type": "text", "text": TEXT}], TEXT, None),
        ([{"type": "reasoning", "text": "Hm."}, {"type": "output_text", "text": TEXT}], TEXT, None),
        ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": TEXT}], TEXT, None),
        ([{"text": "Hm.", "thought": True}, {"text": TEXT}], TEXT, None),
        ([{"type": "text", "text": {"value": TEXT, "annotations": []}}], TEXT, None),
        ([{"text": TEXT}, {"type": "text", "text": "It runs away."}], f"{TEXT} It runs away.", None),
        ([{"type": "thinking", "thinking": "Hm."}], None, "holds reasoning, and no text (stop)"),
        ([{"type": "refusal", "refusal": "I can't do that."}], None, "I can't do that."),
        ([{"type": "tool_use", "input": {}}], None, "holds reasoning, and no text (stop)"),
    ],
)  # fmt: skip
def test_contents_in_parts(content: object, text: str | None, reason: str | None) -> None:
    """Only parts that are text are the answer."""
    [item] = parsed(content)
    assert (item.text, item.reason) == (text, reason)


def test_reasoning_in_a_field_of_its_own() -> None:
    """It is no answer; where there is nothing else, the reason says so."""
    [item] = parsed(TEXT, reasoning_content="Hm, a dog.")
    assert item.text == TEXT
    for name in ("reasoning_content", "reasoning"):
        [item] = parsed("", finish="length", **{name: "Hm, a dog."})
        assert item.reason == "holds reasoning, and no text (length)"
