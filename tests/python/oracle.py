"""Asks a running llama-server about a model: its tokens, its prompts, its distributions.

Made tests/data/oracle/gemma-3-270m/, with llama.cpp's server on the model's own file:

    llama-server -m FILE.gguf --port 8099 -t 1 -c 4096 -ctk f16 -ctv f16 --no-jinja --chat-template gemma
    python3 tests/python/oracle.py http://127.0.0.1:8099 tests/data/oracle/gemma-3-270m

Nothing of ours takes part. No test runs this; they compare with what it wrote.
"""

import json
import sys
import urllib.request
from pathlib import Path

ORACLE = Path(__file__).parent.parent / "data" / "oracle"

# Beside the texts that the embedded model's oracle has: what is special about a vocabulary with scores and byte fallback.
TEXTS = [
    " ", "  ", "   ", " " * 31, " " * 32, " " * 40, " " * 63, "a  b   c    d", " leading", "trailing ", "  two leading", "\u2581", "\u2581a b\u2581",
    "\n", "\n\n", "\n\n\n", "\n" * 31, "\n" * 32, "\n" * 70, "a\nb\n\nc\n\n\nd", "\n \n", " \n ", "\r\n\r\n", "\t", "\t\t\t", "\t" * 40, " \t \t", "a\tb",
    "<eos>", "<bos>", "<pad>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>", "<start_of_turn>user\nhi<end_of_turn>\n", "[multimodal]",
    "<start_of_image>", "<end_of_image>", "<unused0>", "<unused99>", "<unused6241>", "<unused", "<0x0A>", "<0xFF>", "< eos >", "<eos", "eos>",
    "<table>", "<td>x</td>", "<strong>bold</strong>", "</h1>", "<html><body><p>Hi</p></body></html>", "<br><br>", "<ul><li>a</li><li>b</li></ul>",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "abababababababab", "ababaababaab", "hahahahahahaha", "nananananana batman", "eeeeeeeeeeeee", "0000000000000000", "1234567890",
    "3.14159265358979", "1,234,567.89", "2026-11-22T13:53:01Z", "v1.2.3-rc.4+build.5", "0x7fff_ffff", "1e-10", "x=1;y=2", "a+b*c/d-e%f", "!=", "===", "...", "....", "\u2026",
    "The quick brown fox jumps over the lazy dog.", "Donaudampfschifffahrtsgesellschaftskapit\u00e4n", "antidisestablishmentarianism", "pneumonoultramicroscopicsilicovolcanoconiosis",
    "caf\u00e9", "cafe\u0301", "na\u00efve r\u00e9sum\u00e9", "\u00c5ngstr\u00f6m", "A\u030angstro\u0308m", "\u1e9e\u00df", "\ufb01n", "\u00bd \u00be \u2153",
    "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002", "\u4e2d\u6587\u5206\u8bcd\u6d4b\u8bd5", "\ud55c\uad6d\uc5b4 \ubb38\uc7a5", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22", "\u0627\u0644\u0644\u063a\u0629 \u0627\u0644\u0639\u0631\u0628\u064a\u0629", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac", "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u10e5\u10d0\u10e0\u10d7\u10e3\u10da\u10d8", "\u0540\u0561\u0575\u0565\u0580\u0565\u0576", "\u1200\u1208\u1210", "\u13e3\u13b3\u13a9", "\ua980\ua981", "\U00012000\U00012001", "\U00013000",
    "\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f9ff\U0001faf6", "\U000e0041", "\U0010ffff", "\ufffd", "\ufeffbom", "\u200b\u200c\u200d", "\u00a0\u2003\u3000x", "\u0001\u0002\u007f", "\u0085\u2028\u2029",
    "fn main() {\n    println!(\"Hello, {}!\", name);\n}\n", "def f(x):\n\treturn x ** 2\n", "SELECT * FROM t WHERE a = 'b';", "{\"a\": [1, 2.5, null, true], \"b\": {\"c\": \"d\"}}", "https://example.org/a/b?c=d&e=%20f#g", "user@example.org", "C:\\Users\\x\\file.txt", "/usr/local/bin", "#include <stdio.h>\nint main(void) { return 0; }", "if (a && b || !c) { d(); }", "`code` **bold** _it_ ~~x~~", "| a | b |\n|---|---|\n| 1 | 2 |", "$$\\int_0^1 x^2 dx$$", "\\begin{equation}", "CamelCaseIdentifier snake_case_identifier SCREAMING_CASE kebab-case",
    "I'm you're he's we'll they've I'd don't", "\u201cquotes\u201d \u2018and\u2019 \u2014 dashes \u2013", "WHAT?! No way!!!", "a.b.c.d", "Mr. Smith went to Washington, D.C., on Jan. 5th.",
    "Question: What is 17 * 23?\nAnswer: 391\n\nQuestion: What is 12 * 12?\nAnswer:", "word " * 50, "\u00fc" * 20, "\U0001f600" * 10, "ab" * 100,
]

PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a small village by the sea,",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "Question: What is 12 * 12?\nAnswer: 144\n\nQuestion: What is 7 * 8?\nAnswer:",
    "Die Hauptstadt von Deutschland ist",
    "Ingredients:\n- 200 g flour\n- 2 eggs\n-",
    "\u65e5\u672c\u306e\u9996\u90fd\u306f",
    "The theory of evolution by natural selection was proposed by",
]

CONVERSATIONS = [
    [("user", "What is the capital of France?")],
    [("system", "You are terse."), ("user", "  Name three colours. ")],
    [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "Write a haiku about the sea.")],
]


def main():
    url, out = sys.argv[1], Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    known = [item["text"] for item in json.loads((ORACLE / "tokenize.json").read_text())["items"]]
    texts = list(dict.fromkeys(known + TEXTS))
    write(out / "tokenize.json", [tokenize(url, text) for text in texts])
    write(out / "templates.json", [template(url, turns) for turns in CONVERSATIONS])
    write(out / "greedy.json", [greedy(url, prompt) for prompt in PROMPTS])


def tokenize(url, text):
    def ids(parse):
        return ask(url, "tokenize", content=text, add_special=False, parse_special=parse)["tokens"]

    return {"text": text, "ids_plain": ids(False), "ids_special": ids(True)}


def template(url, turns):
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"messages": messages, "prompt": ask(url, "apply-template", messages=messages)["prompt"]}


def greedy(url, prompt):
    tokens = ask(url, "tokenize", content=prompt, add_special=True, parse_special=True)["tokens"]
    answer = ask(url, "completion", prompt=tokens, n_predict=24, temperature=0, n_probs=5, cache_prompt=False, return_tokens=True)
    positions = [
        {"top5": [[top["id"], round(top["logprob"], 6)] for top in position["top_logprobs"]]}
        for position in answer["completion_probabilities"]
    ]
    return {"prompt": prompt, "prompt_tokens": tokens, "tokens": answer["tokens"], "positions": positions}


def ask(url, path, **body):
    request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def write(path, items):
    lines = ",\n".join(json.dumps(item) for item in items)
    path.write_text(f'{{"items": [\n{lines}\n]}}\n')


main()
