"""The OpenAI SDK for Python, as it is, against a gateway: python openai_sdk.py URL GATEWAY_DID.

Each check is a function; its name is printed when it has passed. Answers are short: the model is slow.
"""

import asyncio
import base64
import hashlib
import json
import sys
import urllib.request
from typing import Literal

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from receipt import covers, digest, verified

URL, GATEWAY = sys.argv[1:]
# No retries: a refusal that the SDK would repeat should show.
client = OpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
later = AsyncOpenAI(base_url=f"{URL}/v1", api_key="unused", max_retries=0)
MODEL = client.models.list().data[0].id
ASK = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Name three colours."}],
    "max_tokens": 12,
    "seed": 7,
    "temperature": 0.8,
}


def chain(identifier: str) -> dict:
    """What the gateway keeps of an answer."""
    with urllib.request.urlopen(f"{URL}/v1/receipts/{identifier}") as reply:
        return json.load(reply)


def proven(identifier: str, compact: str, texts: list[str], finishes: list[str]) -> dict:
    """The receipt's claims, if they are over these answers and the gateway keeps the same receipt."""
    kept = chain(identifier)
    assert kept["receipt"] == compact
    claims = verified(compact, kept["chain"], GATEWAY)
    assert claims["jti"] == identifier
    assert "sub" not in claims
    covers(claims, texts, finishes)
    return claims


def part(compact: str) -> int:
    """0 for a receipt, else the number of a checkpoint."""
    claims = compact.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["part"]


def closing(chunk) -> bool:
    """Whether a chunk carries the receipt, and not a checkpoint of the answer so far."""
    receipt = (chunk.model_extra or {}).get("receipt")
    return receipt is not None and part(receipt) == 0


def gathered(chunks: list, count: int = 1) -> tuple[list[str], list[str], str]:
    """Texts, finishes and the receipt of streamed chunks."""
    texts, finishes, receipt = [""] * count, [None] * count, None
    for chunk in chunks:
        for choice in chunk.choices:
            text = choice.delta.content if hasattr(choice, "delta") else choice.text
            texts[choice.index] += text or ""
            finishes[choice.index] = choice.finish_reason or finishes[choice.index]
        receipt = (chunk.model_extra or {}).get("receipt", receipt)
    return texts, finishes, receipt


def models():
    listed = client.models.list().data
    assert [model.object for model in listed] == ["model"] * len(listed)
    assert client.models.retrieve(MODEL).id == MODEL
    try:
        client.models.retrieve("no-such-model")
        raise AssertionError("an unknown model was found")
    except openai.NotFoundError as error:
        assert error.status_code == 404 and error.body["message"]


def chat():
    answer = client.chat.completions.create(**ASK)
    (choice,) = answer.choices
    assert answer.object == "chat.completion" and answer.model == MODEL
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 12
    claims = proven(answer.id, answer.receipt, [choice.message.content], [choice.finish_reason])
    assert claims["input"]["prompt_tokens"] == answer.usage.prompt_tokens
    assert claims["output"][0]["tokens"] == answer.usage.completion_tokens
    assert claims["sampling"]["seed"] == "7" and claims["sampling"]["seed_by"] == "client"
    assert claims["sampling"]["temperature"] == 0.8
    assert answer._request_id == answer.id


def chat_streamed():
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    texts, finishes, receipt = gathered(chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.object == "chat.completion.chunk" and chunk.usage is None for chunk in chunks)
    assert [chunk for chunk in chunks if closing(chunk)] == chunks[-1:]
    assert chunks[-1].choices[0].finish_reason
    proven(chunks[0].id, receipt, texts, finishes)
    whole = client.chat.completions.create(**ASK)
    assert texts == [whole.choices[0].message.content], "the same seed gives the same answer"


def chat_usage_chunk():
    chunks = list(client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}))
    texts, finishes, receipt = gathered(chunks)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert chunks[-1].receipt == chunks[-2].receipt == receipt
    proven(chunks[0].id, receipt, texts, finishes)


def stopping() -> dict:
    """The same question, with a stop text that the answer meets: the SDK's helper refuses an answer cut by length."""
    said = client.chat.completions.create(**ASK).choices[0].message.content
    return ASK | {"stop": [said[8:11]]}


def chat_stream_helper():
    receipts = []
    with client.chat.completions.stream(**stopping()) as stream:
        deltas = ""
        for event in stream:
            if event.type == "content.delta":
                deltas += event.delta
            if event.type == "chunk":
                receipts += [event.chunk.receipt] if closing(event.chunk) else []
        answer = stream.get_final_completion()
    (choice,) = answer.choices
    assert choice.message.content == deltas
    (receipt,) = receipts
    proven(answer.id, receipt, [deltas], [choice.finish_reason])


def chat_choices_and_logprobs():
    answer = client.chat.completions.create(**ASK | {"n": 2, "max_tokens": 8}, logprobs=True, top_logprobs=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    texts = [choice.message.content for choice in answer.choices]
    proven(answer.id, answer.receipt, texts, [choice.finish_reason for choice in answer.choices])
    for choice in answer.choices:
        shown = choice.logprobs.content
        text = b"".join(bytes(entry.bytes) for entry in shown)
        assert text.decode().startswith(choice.message.content) or choice.finish_reason == "stop"
        assert all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in shown)
        for entry in shown:
            best = [top.logprob for top in entry.top_logprobs]
            assert best == sorted(best, reverse=True)
    chunks = list(client.chat.completions.create(**ASK | {"n": 2, "max_tokens": 8}, stream=True))
    streamed, finishes, receipt = gathered(chunks, 2)
    assert streamed == texts
    proven(chunks[0].id, receipt, streamed, finishes)


def chat_extras():
    extras = {"return_token_ids": True, "top_k": 5, "min_p": 0.01, "min_tokens": 2}
    answer = client.chat.completions.create(**ASK, stop=["zzz"], extra_body=extras)
    claims = proven(answer.id, answer.receipt, [answer.choices[0].message.content], [answer.choices[0].finish_reason])
    ids = answer.choices[0].token_ids
    assert len(ids) == claims["output"][0]["tokens"]
    assert len(answer.prompt_token_ids) == claims["input"]["prompt_tokens"]
    assert claims["sampling"]["top_k"] == 5 and claims["sampling"]["stop"] == ["zzz"]


def completion():
    ask = {"model": MODEL, "prompt": "One, two, three,", "max_tokens": 8, "temperature": 0}
    answer = client.completions.create(**ask)
    assert answer.object == "text_completion" and answer.choices[0].text
    proven(answer.id, answer.receipt, [answer.choices[0].text], [answer.choices[0].finish_reason])
    chunks = list(client.completions.create(**ask, stream=True))
    texts, finishes, receipt = gathered(chunks)
    assert texts == [answer.choices[0].text]
    proven(chunks[0].id, receipt, texts, finishes)
    by_ids = client.completions.create(**ask | {"prompt": tokenized(ask["prompt"])})
    assert by_ids.choices[0].text == answer.choices[0].text


def tokenized(text: str) -> list[int]:
    """vLLM's endpoint, which the SDK doesn't know."""
    body = json.dumps({"model": MODEL, "prompt": text}).encode()
    request = urllib.request.Request(f"{URL}/tokenize", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        told = json.load(reply)
    assert told["count"] == len(told["tokens"])
    return told["tokens"]


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


def is_weather(arguments: str) -> bool:
    asked = json.loads(arguments)
    return set(asked) == {"city", "unit"} and len(asked["city"]) <= 12 and asked["unit"] in ("C", "F")


def said(calls: list) -> str:
    """What a receipt hashes of an answer that calls: grammar.md, 4.2."""
    form = '<tool_call>\n{{"name": "{}", "arguments": {}}}\n</tool_call>'
    return "\n".join(form.format(call.function.name, call.function.arguments) for call in calls)


def call_id(answer: str, choice: int, call: int) -> str:
    """grammar.md, 4.4"""
    given = b"countersign/call/1\n" + answer.encode() + bytes([choice, call])
    return "call_" + hashlib.sha256(given).hexdigest()[:24]


def tool_calls():
    once = {"type": "function", "function": {"name": "get_weather"}}
    ask = ASK | {"tools": [WEATHER], "tool_choice": once, "max_tokens": 100, "temperature": 1}
    for seed in range(3):
        answer = client.chat.completions.create(**ask | {"seed": seed})
        (choice,) = answer.choices
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        (call,) = choice.message.tool_calls
        assert call.function.name == "get_weather" and is_weather(call.function.arguments)
        assert call.id == call_id(answer.id, 0, 0)
        claims = proven(answer.id, answer.receipt, [said([call])], ["stop"])
        assert claims["domain"] == "text+calls/1" and claims["sampling"]["grammar"].startswith("tools/")
    chunks = list(client.chat.completions.create(**ask | {"seed": 2}, stream=True))
    deltas = [delta for chunk in chunks for delta in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].function.name == "get_weather" and deltas[0].id == call_id(chunks[0].id, 0, 0)
    assert all(delta.id is None and delta.function.name is None for delta in deltas[1:])
    assert "".join(delta.function.arguments for delta in deltas) == call.function.arguments
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    proven(chunks[0].id, chunks[-1].receipt, [said([call])], ["stop"])
    parts = ("parallel_tool_calls", True), ("tool_choice", once), ("tools", [WEATHER])
    canonical = json.dumps(dict(parts), separators=(",", ":"), ensure_ascii=False).encode()
    assert claims["sampling"]["grammar_sha256"] == digest(b"countersign/grammar/1\n" + canonical)


def tool_answers():
    """A conversation with a call in it, and a model that may call again or not."""
    called = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = ASK["messages"] + [
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 20 C"},
    ]
    ask = ASK | {"messages": messages, "tools": [WEATHER], "max_tokens": 20}
    answer = client.chat.completions.create(**ask)
    (choice,) = answer.choices
    text = said(choice.message.tool_calls) if choice.message.tool_calls else choice.message.content
    finish = "stop" if choice.finish_reason == "tool_calls" else choice.finish_reason
    proven(answer.id, answer.receipt, [text], [finish])
    with client.chat.completions.stream(**ask | {"tool_choice": "required", "max_tokens": 100, "parallel_tool_calls": False}) as stream:
        helped = stream.get_final_completion()
    (call,) = helped.choices[0].message.tool_calls
    assert is_weather(call.function.arguments)


def json_by_schema():
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 10},
            "age": {"type": "integer", "minimum": 0, "maximum": 130},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": False,
    }
    shape = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}
    for seed in range(3):
        ask = ASK | {"temperature": 1, "seed": seed, "n": 8, "max_tokens": 100, "response_format": shape}
        answer = client.chat.completions.create(**ask)
        texts = [choice.message.content for choice in answer.choices]
        for text in texts:
            person = json.loads(text)
            assert list(person) == ["name", "age", "tags"] and len(person["name"]) <= 10, text
            assert isinstance(person["age"], int) and 0 <= person["age"] <= 130, text
            assert len(person["tags"]) <= 2 and set(person["tags"]) <= {"a", "b"}, text
        claims = proven(answer.id, answer.receipt, texts, ["stop"] * 8)
        assert claims["domain"] == "text/1" and claims["sampling"]["grammar"].startswith("json_schema/")
    anything = ASK | {"response_format": {"type": "json_object"}}
    assert client.chat.completions.create(**anything).choices[0].message.content.startswith("{")


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]
    warm: bool


def parsed():
    answer = client.chat.completions.parse(**ASK | {"max_tokens": 40}, response_format=Colour)
    (choice,) = answer.choices
    assert isinstance(choice.message.parsed, Colour)
    proven(answer.id, answer.receipt, [choice.message.content], ["stop"])


def refusals():
    cases = [
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}}, openai.BadRequestError, "tool_choice.function.name"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "text"}}}},
            openai.BadRequestError,
            "response_format.json_schema.schema",
        ),
        ({"extra_body": {"chat_template": "{{ messages }}"}}, openai.BadRequestError, "chat_template"),
    ]
    for change, kind, param in cases:
        try:
            client.chat.completions.create(**ASK | change)
            raise AssertionError(f"{change} was accepted")
        except kind as error:
            assert error.body["param"] == param, error.body
            assert error.body["message"] and error.body["type"], error.body


async def async_chat():
    ask = stopping()

    async def streamed() -> tuple:
        chunks = [chunk async for chunk in await later.chat.completions.create(**ask, stream=True)]
        return chunks[0].id, *gathered(chunks)

    async def helped() -> tuple:
        chunks = []
        async with later.chat.completions.stream(**ask) as stream:
            async for event in stream:
                chunks += [event.chunk] if event.type == "chunk" else []
            answer = await stream.get_final_completion()
        return answer.id, *gathered(chunks)

    async def whole() -> tuple:
        answer = await later.chat.completions.create(**ask)
        (choice,) = answer.choices
        return answer.id, [choice.message.content], [choice.finish_reason], answer.receipt

    answers = await asyncio.gather(streamed(), helped(), whole())
    for identifier, texts, finishes, receipt in answers:
        proven(identifier, receipt, texts, finishes)
    assert len({texts[0] for _, texts, _, _ in answers}) == 1, "asked at once, with one seed"


for check in (
    models,
    chat,
    chat_streamed,
    chat_usage_chunk,
    chat_stream_helper,
    chat_choices_and_logprobs,
    chat_extras,
    completion,
    tool_calls,
    tool_answers,
    json_by_schema,
    parsed,
    refusals,
):
    check()
    print("ok", check.__name__, flush=True)
asyncio.run(async_chat())
print("ok async_chat")
