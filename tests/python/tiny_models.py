"""Makes the small random models of tests/data/exact: `tiny_models.py write`; `tiny_models.py check` says whether they still come out the same.

Together they use every tensor format and every feature of profile exact/1. The numbers are drawn from splitmix64, so the files can be made anywhere; the vectors
in tests/data/exact/vectors.json are over these very files.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import gguf_file
from gguf_file import FORMATS, STRING

DATA = Path(__file__).parent.parent / "data" / "exact"
VOCAB = 64
U32, F32 = 4, 6

LLAMA = {"hidden": 64, "heads": 4, "kv_heads": 2, "head": 16, "ffn": 96, "layers": 2, "tied": True, "factors": False, "keys": {}}
GEMMA = {**LLAMA, "layers": 7, "hidden": 32, "ffn": 64, "keys": {
    "attention.sliding_window": (U32, 12),
    "attn_logit_softcapping": (F32, 2.0),
    "final_logit_softcapping": (F32, 6.0),
    "rope.freq_base": (F32, 300.0),
    "rope.freq_base_swa": (F32, 100.0),
    "rope.scaling.type": (STRING, "linear"),
    "rope.scaling.factor": (F32, 8.0),
}}
SCALED = {"rope.freq_base": (F32, 500.0), "rope.scaling.type": (STRING, "linear"), "rope.scaling.factor": (F32, 4.0)}
FLOATS = ["F32", "BF16", "F16"]

MODELS = {
    # Every format of 32 weights; a tied head; two query heads for each key-value head.
    "llama-blocks": {**LLAMA, "formats": ["Q8_0", "Q4_1", "Q4_0", "Q5_0", "Q5_1"]},
    # Every format of 256 weights; a head of its own; scaled rotation.
    "llama-k": {**LLAMA, "hidden": 256, "heads": 4, "kv_heads": 1, "head": 64, "ffn": 256, "tied": False, "keys": SCALED, "formats": ["Q4_K", "Q6_K", "Q5_K"]},
    # Floats: a head of its own, scaled rotation.
    "llama-floats": {**LLAMA, "tied": False, "keys": SCALED, "formats": FLOATS},
    # Floats: a key-value head for each query head, half of each head rotated, by a table of factors.
    "llama-factors": {**LLAMA, "kv_heads": 4, "factors": True, "keys": {"rope.dimension_count": (U32, 8)}, "formats": FLOATS},
    # Windows, both rotations, both caps, norms of heads and of branches.
    "gemma3-floats": {**GEMMA, "formats": FLOATS},
    "gemma3-blocks": {**GEMMA, "formats": ["Q5_0", "Q8_0", "Q4_1"]},
}

# The spread of a format's weights when its bytes are random and its scale is 1; what a mean is taken away with.
SPREAD = {"Q4_0": 4.6, "Q4_1": 4.6, "Q5_0": 9.2, "Q5_1": 9.2, "Q8_0": 74.0, "Q4_K": 258.0, "Q5_K": 526.0, "Q6_K": 1370.0}
MINUS = {"Q4_1": -7.5, "Q5_1": -15.5, "Q4_K": 7.5, "Q5_K": 15.5}


class Random:
    """splitmix64."""

    def __init__(self, seed):
        self.state = np.uint64(seed)

    def bits(self, count):
        with np.errstate(over="ignore"):
            gamma = np.uint64(0x9E3779B97F4A7C15)
            z = self.state + gamma * np.arange(1, count + 1, dtype=np.uint64)
            self.state += gamma * np.uint64(count)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

    def normal(self, count):
        """About normally distributed, and exact in float64: twelve 24-bit integers."""
        parts = (self.bits(12 * count) >> np.uint64(40)).astype(np.int64).reshape(count, 12)
        return (parts.sum(axis=1) - 6 * 2**24) / 2**24


def weights(random, form, count, spread):
    """The bytes of `count` weights."""
    _, unit, size = FORMATS[form]
    if unit == 1:
        floats = (random.normal(count) * spread).astype("<f4")
        if form == "BF16":
            return (floats.view("<u4") >> 16).astype("<u2").tobytes()
        return floats.astype({"F32": "<f4", "F16": "<f2"}[form]).tobytes()
    units = (random.bits(count // unit * size) >> np.uint64(56)).astype(np.uint8).reshape(-1, size)
    # Scales differ from unit to unit by up to a quarter.
    scale = spread / SPREAD[form] * (1 + (random.bits(len(units)) >> np.uint64(40)).astype(np.float64) / 2**26)
    at = 208 if form == "Q6_K" else 0
    units[:, at : at + 2] = half(scale)
    if form in MINUS:
        units[:, 2:4] = half(scale * MINUS[form])
    return units.tobytes()


def half(numbers):
    return numbers.astype("<f2").view(np.uint8).reshape(-1, 2)


def make(name, path):
    recipe = MODELS[name]
    hidden, head, ffn = recipe["hidden"], recipe["head"], recipe["ffn"]
    query, kv = recipe["heads"] * head, recipe["kv_heads"] * head
    gemma = name.startswith("gemma3")
    random = Random(sum(name.encode()))
    tensors = {}

    def matrix(tensor, outputs, inputs, spread):
        form = recipe["formats"][len(tensors) % len(recipe["formats"])]
        tensors[tensor + ".weight"] = (form, [outputs, inputs], weights(random, form, outputs * inputs, spread))

    def vector(tensor, length):
        floats = (1 + 0.25 * random.normal(length)).astype("<f4")
        tensors[tensor + ".weight"] = ("F32", [length], floats.tobytes())

    matrix("token_embd", VOCAB, hidden, 0.5)
    if not recipe["tied"]:
        matrix("output", VOCAB, hidden, 0.5)
    for layer in range(recipe["layers"]):
        for part, outputs, inputs in [
            ("attn_q", query, hidden), ("attn_k", kv, hidden), ("attn_v", kv, hidden), ("attn_output", hidden, query),
            ("ffn_gate", ffn, hidden), ("ffn_up", ffn, hidden), ("ffn_down", hidden, ffn),
        ]:
            matrix(f"blk.{layer}.{part}", outputs, inputs, 1.5 / inputs**0.5)
    for layer in range(recipe["layers"]):
        parts = [("attn_norm", hidden), ("ffn_norm", hidden)]
        if gemma:
            parts += [("attn_q_norm", head), ("attn_k_norm", head), ("post_attention_norm", hidden), ("post_ffw_norm", hidden)]
        for part, length in parts:
            vector(f"blk.{layer}.{part}", length)
    vector("output_norm", hidden)
    if recipe["factors"]:
        vector("rope_freqs", recipe["keys"]["rope.dimension_count"][1] // 2)

    architecture = "gemma3" if gemma else "llama"
    keys = {
        "embedding_length": (U32, hidden), "block_count": (U32, recipe["layers"]), "feed_forward_length": (U32, ffn), "context_length": (U32, 1024),
        "attention.head_count": (U32, recipe["heads"]), "attention.head_count_kv": (U32, recipe["kv_heads"]),
        "attention.key_length": (U32, head), "attention.value_length": (U32, head), "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        **recipe["keys"],
    }
    metadata = {"general.architecture": (STRING, architecture), **{f"{architecture}.{key}": value for key, value in keys.items()}}
    gguf_file.write(path, metadata, tensors)


def main():
    DATA.mkdir(exist_ok=True)
    for name in MODELS:
        kept = DATA / f"{name}.gguf"
        if sys.argv[1:] == ["write"]:
            make(name, kept)
            continue
        assert sys.argv[1:] == ["check"], __doc__
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "model.gguf"
            make(name, made)
            assert made.read_bytes() == kept.read_bytes(), f"{name} comes out differently"
        print(f"{name}: as it is kept")


if __name__ == "__main__":
    main()
