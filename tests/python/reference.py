"""The models of profile exact/1 in float64: what their logits should be, apart from rounding.

    reference.py write     computes tests/data/exact/reference.json from the small models beside it
    reference.py check     says whether it still comes out the same, and that each feature of a model shows in its logits
    reference.py oracle FILE.gguf GREEDY.json OUT.json     what it makes of a real model, where another implementation's tokens are forced on it

Written from docs/spec/exact.md, 6, and the papers behind it (Llama; Gemma 2 and 3), not from the Rust code, with which it shares nothing. Weights are exact, activations aren't
quantised and nothing is rounded, but keys and values are kept as float16 (5.4). On the embedded model it agrees with the older float32 reference
(tests/data/oracle/f32_reference.json) at 99.6 % of 230 positions, with a mean difference of 0.0004 in log-probability. By hand, gemma3-floats (without its caps, which llama.cpp doesn't know here) and
llama-floats were given to llama.cpp (0c1e57098, float32 weights, float16 keys and values): at texts of 1 to 100 tokens its 20 best log-probabilities were at most 0.008 away.
"""

import json
import sys
from pathlib import Path

import numpy as np

import gguf_file

DATA = Path(__file__).parent.parent / "data" / "exact"
# Long enough for every window and for two segments of attention.
LENGTH = 280
POSITIONS = [0, 1, 2, 11, 12, 13, 40, 255, 256, 279]


def tokens(length):
    """A text that never repeats itself for long."""
    return [(i * 37 + i * i * 11) % 61 for i in range(length)]


def forward(model, ids):
    """The logits of every position."""
    key, tensors = model.key, model.tensors
    architecture = model.metadata["general.architecture"]
    assert architecture in ("llama", "gemma3"), architecture
    gemma = architecture == "gemma3"
    hidden, heads, layers = key("embedding_length"), key("attention.head_count"), key("block_count")
    kv_heads = key("attention.head_count_kv", heads)
    head = key("attention.key_length", hidden // heads)
    epsilon = key("attention.layer_norm_rms_epsilon")
    positions = np.arange(len(ids))

    def norm(x, name):
        weight = tensors.get(name + ".weight")
        if weight is None:
            return x
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight

    def linear(x, name):
        return x @ tensors[name + ".weight"].T

    def rotate(x, layer):
        local = gemma and layer % 6 != 5
        count = head if gemma else key("rope.dimension_count", head)
        base = key("rope.freq_base_swa", 10000.0) if local else key("rope.freq_base", 1000000.0 if gemma else 10000.0)
        frequency = base ** (-np.arange(0, count, 2) / count)
        if not local and key("rope.scaling.type") == "linear":
            frequency = frequency / key("rope.scaling.factor")
        if "rope_freqs.weight" in tensors:
            frequency = frequency / tensors["rope_freqs.weight"]
        angle = np.outer(positions, frequency)[:, None, :]
        # A pair is a complex number; rotation multiplies it by e^(i angle).
        pairs = (x[..., : count // 2], x[..., count // 2 : count]) if gemma else (x[..., 0:count:2], x[..., 1:count:2])
        turned = (pairs[0] + 1j * pairs[1]) * np.exp(1j * angle)
        turned = [turned.real, turned.imag]
        rotated = np.concatenate(turned, axis=-1) if gemma else np.stack(turned, axis=-1).reshape(*turned[0].shape[:-1], count)
        return np.concatenate([rotated, x[..., count:]], axis=-1)

    def attend(y, layer):
        name = f"blk.{layer}."
        q = linear(y, name + "attn_q").reshape(len(ids), heads, head)
        k = linear(y, name + "attn_k").reshape(len(ids), kv_heads, head)
        v = linear(y, name + "attn_v").reshape(len(ids), kv_heads, head)
        q, k = (rotate(norm(x, name + part), layer) for x, part in ((q, "attn_q_norm"), (k, "attn_k_norm")))
        k, v = (np.repeat(x.astype(np.float16).astype(np.float64), heads // kv_heads, axis=1) for x in (k, v))
        # The 27B model of Gemma 3 scales by another width.
        width = hidden / heads if gemma and layers == 62 else head
        scores = np.einsum("phd,jhd->hpj", q, k) / np.sqrt(width)
        cap = key("attn_logit_softcapping") if gemma else None
        if cap:
            scores = cap * np.tanh(scores / cap)
        seen = positions[None, :] <= positions[:, None]
        window = key("attention.sliding_window") if gemma and layer % 6 != 5 else None
        if window:
            seen &= positions[None, :] > positions[:, None] - window
        scores = np.where(seen, scores, -np.inf)
        chances = np.exp(scores - scores.max(axis=-1, keepdims=True))
        chances /= chances.sum(axis=-1, keepdims=True)
        return linear(np.einsum("hpj,jhd->phd", chances, v).reshape(len(ids), -1), name + "attn_output")

    def feed_forward(y, layer):
        gate, up = (linear(y, f"blk.{layer}.ffn_{part}") for part in ("gate", "up"))
        if gemma:
            gate = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        return linear(gate * up, f"blk.{layer}.ffn_down")

    x = tensors["token_embd.weight"][ids]
    if gemma:
        x = x * np.sqrt(hidden)
    for layer in range(layers):
        x = x + norm(attend(norm(x, f"blk.{layer}.attn_norm"), layer), f"blk.{layer}.post_attention_norm")
        x = x + norm(feed_forward(norm(x, f"blk.{layer}.ffn_norm"), layer), f"blk.{layer}.post_ffw_norm")
    x = norm(x, "output_norm")
    logits = linear(x, "output" if "output.weight" in tensors else "token_embd")
    cap = key("final_logit_softcapping") if gemma else None
    return cap * np.tanh(logits / cap) if cap else logits


def distance(ours, theirs):
    """The greatest difference of a logit, in widths of its row."""
    width = theirs.max(axis=1) - theirs.min(axis=1)
    return (np.abs(ours - theirs).max(axis=1) / width).max()


def without(model, feature):
    """The model with something left out."""
    architecture = model.metadata["general.architecture"]
    metadata = {key: value for key, value in model.metadata.items() if key != f"{architecture}.{feature}"}
    tensors = {name: tensor for name, tensor in model.tensors.items() if f".{feature}." not in f".{name}"}
    return gguf_file.Model(metadata, tensors)


FEATURES = {
    "llama-blocks": [],
    "llama-k": ["output", "rope.scaling.type", "rope.freq_base"],
    "llama-floats": ["output", "rope.scaling.type", "rope.freq_base"],
    "llama-factors": ["rope_freqs"],
    "gemma3-floats": ["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "rope.freq_base", "rope.freq_base_swa", "rope.scaling.type",
                      "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm"],
}
FEATURES["gemma3-blocks"] = FEATURES["gemma3-floats"]


def compute():
    ids = tokens(LENGTH)
    models = []
    for name in FEATURES:
        rows = forward(gguf_file.read(DATA / f"{name}.gguf"), ids)[POSITIONS]
        models.append({"model": name, "rows": [[float(f"{x:.7g}") for x in row] for row in rows]})
    return {"tokens": ids, "positions": POSITIONS, "models": models}


def oracle(model, greedy, out):
    model, items = gguf_file.read(model), []
    for item in json.loads(Path(greedy).read_text())["items"]:
        prompt, ids = item["prompt_tokens"], item["tokens"]
        logits = forward(model, prompt + ids[:-1])[len(prompt) - 1 :]
        logits -= logits.max(axis=1, keepdims=True)
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        items.append([[[int(id), round(float(row[id]), 6)] for id in np.argsort(-row)[:5]] for row in logprobs])
    lines = ",\n".join(json.dumps({"positions": [{"top5": top} for top in item]}) for item in items)
    Path(out).write_text(f'{{"items": [\n{lines}\n]}}\n')


def main(command, *rest):
    if command == "oracle":
        oracle(*rest)
        return
    computed = compute()
    path = DATA / "reference.json"
    if command == "write":
        rows = ",\n".join(json.dumps(model) for model in computed["models"])
        head = f'"tokens": {json.dumps(computed["tokens"])},\n"positions": {json.dumps(POSITIONS)},\n'
        path.write_text(f'{{{head}"models": [\n{rows}\n]}}\n')
        return
    assert command == "check", __doc__
    kept = json.loads(path.read_text())
    assert (kept["tokens"], kept["positions"]) == (computed["tokens"], POSITIONS)
    for ours, theirs in zip(computed["models"], kept["models"], strict=True):
        name, rows = ours["model"], np.array(ours["rows"])
        assert name == theirs["model"]
        assert distance(rows, np.array(theirs["rows"])) < 1e-6, f"{name} comes out differently"
        model = gguf_file.read(DATA / f"{name}.gguf")
        for feature in FEATURES[name]:
            moved = distance(forward(without(model, feature), computed["tokens"])[POSITIONS], rows)
            assert moved > 0.05, f"{name} is hardly another without {feature}: {moved}"
            print(f"{name} without {feature}: {moved:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
