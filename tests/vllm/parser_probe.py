"""Split texts with vLLM's own reasoning parsers, inside vLLM's environment.

The script reads {"tokenizer": directory, "cases": [{"parser", "prompt", "text", "kwargs", "tokens",
"chunks"}, ...]} from stdin and writes {"parsers": names, "results": [...]} to stdout.

`parsers` names all of vLLM's parsers. `results` has one list for each case. It starts with [reasoning,
content] of the whole text. One such pair follows for a stream of each size in `chunks` (tokens a chunk).
The script first adds `tokens` to the vocabulary as single tokens, as the family's own tokenizer has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

from transformers import AutoTokenizer
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.reasoning import ReasoningParserManager


def deltas(tokenizer: Any, ids: list[int], size: int) -> Iterator[tuple[str, list[int]]]:
    """Yield the text of every `size` tokens; like vLLM, hold back an incomplete character."""
    sent = ""
    for start in range(0, len(ids), size):
        text = tokenizer.decode(ids[: start + size]).rstrip("\ufffd")
        yield text[len(sent) :], ids[start : start + size]
        sent = text


def probe(tokenizer: Any, case: dict[str, Any]) -> list[list[str]]:
    """Return the results of one case, by the calls of the chat endpoint."""
    request = ChatCompletionRequest(model="m", messages=[{"role": "user", "content": "?"}])
    parser_class = ParserManager.get_parser(reasoning_parser_name=case["parser"])
    prompt = tokenizer.encode(case["prompt"], add_special_tokens=False)
    ids = tokenizer.encode(case["text"], add_special_tokens=False)

    def new_parser() -> Any:
        return parser_class(tokenizer, chat_template_kwargs=case["kwargs"])

    parser = new_parser()
    parser.set_prompt_token_ids(prompt)
    reasoning, content, _ = parser.parse(case["text"], request, model_output_token_ids=ids)
    results = [[reasoning or "", content or ""]]
    for size in case["chunks"]:
        parser, parts = new_parser(), ["", ""]
        pieces = list(deltas(tokenizer, ids, size))
        for number, (text, tokens) in enumerate(pieces, 1):
            delta = parser.parse_delta(
                delta_text=text,
                delta_token_ids=tokens,
                request=request,
                prompt_token_ids=prompt,
                finished=number == len(pieces),
            )
            if delta is not None:
                parts[0] += delta.reasoning or ""
                parts[1] += delta.content or ""
        results.append(parts)
    return results


def main() -> None:
    """Answer stdin on stdout; a parser that does not work at all ends the run with an error."""
    task = json.load(sys.stdin)
    results = []
    for case in task["cases"]:
        tokenizer = AutoTokenizer.from_pretrained(task["tokenizer"])
        tokenizer.add_tokens(case["tokens"])
        results.append(probe(tokenizer, case))
    json.dump({"parsers": ReasoningParserManager.list_registered(), "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
