#!/usr/bin/env python3
"""Writes what transformers (5.24.0) gives a model to read and to write for every answer of a chat, one answer at a time.

    python3 tests/golden/make_history_golden.py               tests/golden/history_golden.json
    python3 tests/golden/make_history_golden.py --trl OUT     the templates of an installed TRL, into OUT/cases.json

The first form uses the templates of tests/support/chat_templates.h; COLONNADE_TRL_HISTORIES=OUT makes
history_oracles_test compare with the second one. The tokenizer is the small Qwen one of tests/golden/tokenizers with each
template's markers.

The file: {"tokenizers": {name: tokenizer.json}, "templates": {name: [source, tokenizer]}, "date": [year, month, day],
"cases": [{"template", "chat", "messages", "variables", "once", "turns"}]}. `once` is the whole chat. A turn is {"message":
its number, "ids", "begin", "end"}: messages up to the answer, of which [begin, end) is behind the prompt. It has no ids if
the template raises, or writes the answer otherwise than behind the generation prompt.
"""
import argparse
import datetime
import importlib.util
import json
import pathlib
import re

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from make_generation_golden import TOOLS, answer, call, chats as generation_chats, message, tokenizer_json, user

HERE = pathlib.Path(__file__).resolve().parent


def own_templates():
    header = (HERE.parent / "support/chat_templates.h").read_text()
    return dict(re.findall(r'inline const std::string k(\w+) =\s+R"\((.*?)\)";', header, re.DOTALL))


def thought(text, thoughts, **more):
    return answer(text, reasoning_content=thoughts, **more)


def histories():
    """Chats by name: messages and variables of the row."""
    made = {name: (chat, {"tools": tools} if tools else {}) for name, (chat, tools) in generation_chats().items()}
    turns = [m for i in range(4) for m in (user(f"Question {i}?"), thought(f"Answer {i}.", f"First {i}.\n\nThen {i * i}."))]
    made["thoughts"] = (turns, {})
    made["thoughts_system"] = ([message("system", "Be brief."), *turns], {})
    made["thoughts_some"] = ([*turns[:3], answer("No thought."), *turns[4:]], {})
    made["thoughts_none_last"] = ([*turns[:2], user("And?"), answer("No thought.")], {})
    made["thoughts_off"] = (turns, {"enable_thinking": False})
    made["answers_off"] = (generation_chats()["turns_3"][0], {"enable_thinking": False})
    made["thoughts_open"] = ([*turns, user("c")], {})
    spelled = [user("2+2?"), answer("<think>\nAdd.\n</think>\n\n4"), user("3+3?"), answer("<think>\nMore.\n</think>\n\n6"),
               user("4+4?"), answer("<think>\nMost.\n</think>\n\n8")]
    made["spelled"] = (spelled, {})
    asks = [call("weather", city=city) for city in ("Bern", "Chur", "Zug")]
    found = message("tool", "sunny, 21.5", name="weather", tool_call_id="callabcde")
    agent = [user("Where is it warm?"), thought("", "Try Bern.", tool_calls=[asks[0]]), found,
             thought("", "Then Chur.", tool_calls=[asks[1]]), found, thought("Both.", "Done."),
             user("And Zug?"), thought("I look.", "One more.", tool_calls=[asks[2]]), found, answer("Also warm.")]
    made["agent"] = (agent, {"tools": TOOLS})
    made["agent_system"] = ([message("system", "Use tools."), *agent], {"tools": TOOLS})
    made["agent_plain"] = ([{k: v for k, v in m.items() if k != "reasoning_content"} for m in agent], {"tools": TOOLS})
    return made


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def turn_of(tokenizer, number, render):
    whole, prompt = render(number + 1, False), render(number, True) if number > 0 else ""
    if not whole.startswith(prompt):
        return {}
    # What a model reads and writes. Only where a token lies across the border is this another list than that of the whole.
    read = ids_of(tokenizer, prompt)
    ids = read + ids_of(tokenizer, whole[len(prompt):])
    if ids != ids_of(tokenizer, whole):
        print(f"    {number}: a token across the end of the prompt")
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    end = max((i + 1 for i in range(len(read), len(ids)) if ids[i] in special), default=len(ids))
    return {"ids": ids, "begin": len(read), "end": end}


def case_of(tokenizer, messages, variables):
    def render(count, prompt):
        return tokenizer.apply_chat_template(messages[:count], add_generation_prompt=prompt, tokenize=False, **variables)

    case = {"messages": messages, "variables": variables, "turns": []}
    try:
        case["once"] = ids_of(tokenizer, render(len(messages), False))
        for number, m in enumerate(messages):
            if m["role"] == "assistant":
                case["turns"].append({"message": number, **turn_of(tokenizer, number, render)})
    except Exception as error:  # the template refuses the chat
        print(f"    {type(error).__name__}: {str(error)[:100]}")
        return None
    return case


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--trl")
    arguments = arguments.parse_args()
    templates, output = own_templates(), HERE / "history_golden.json"
    if arguments.trl:
        folder = pathlib.Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
        templates = {path.stem: path.read_text() for path in sorted(folder.glob("*.jinja")) if "_training" not in path.stem}
        output = pathlib.Path(arguments.trl) / "cases.json"
        output.parent.mkdir(parents=True, exist_ok=True)
    today = datetime.date.today() if arguments.trl else datetime.date(2025, 1, 1)
    result = {"tokenizers": {}, "templates": {}, "date": [today.year, today.month, today.day], "cases": []}
    for name, template in templates.items():
        print(name)
        text = tokenizer_json(HERE / "tokenizers/qwen2/tokenizer.json", template if arguments.trl else "".join(templates.values()))
        known = {json.dumps(value): key for key, value in result["tokenizers"].items()}
        key = known.get(json.dumps(json.loads(text)), f"{len(result['tokenizers'])}")
        result["tokenizers"][key] = json.loads(text)
        result["templates"][name] = [template, key]
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), bos_token="<s>", eos_token="</s>",
                                            chat_template=template)
        for chat, (messages, variables) in histories().items():
            if case := case_of(tokenizer, messages, variables):
                result["cases"].append({"template": name, "chat": chat, **case})
    lines = [f'{json.dumps(key)}: {json.dumps(result[key], ensure_ascii=False)}' for key in ("date", "tokenizers", "templates")]
    cases = ",\n".join(json.dumps(case, ensure_ascii=False, separators=(",", ":")) for case in result["cases"])
    output.write_text("{" + ",\n".join(lines) + ',\n"cases": [\n' + cases + "]}\n")
    print(f"{len(result['cases'])} cases of {len(templates)} templates in {output}")


if __name__ == "__main__":
    main()
