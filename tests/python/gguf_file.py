"""Reads and writes GGUF files, and turns their tensors into float64: from the format's documentation and docs/spec/exact.md, 4.2.

Shares no code with what it tests. Needs NumPy only.
"""

import struct

import numpy as np

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
# Value types of metadata that are read or written here.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9

# name: (number, weights per unit, bytes per unit)
FORMATS = {
    "F32": (0, 1, 4),
    "F16": (1, 1, 2),
    "BF16": (30, 1, 2),
    "Q4_0": (2, 32, 18),
    "Q4_1": (3, 32, 20),
    "Q5_0": (6, 32, 22),
    "Q5_1": (7, 32, 24),
    "Q8_0": (8, 32, 34),
    "Q4_K": (12, 256, 144),
    "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210),
}
NAMES = {number: name for name, (number, _, _) in FORMATS.items()}


class Model:
    """Metadata, and tensors as float64 with one row per output."""

    def __init__(self, metadata, tensors):
        self.metadata = metadata
        self.tensors = tensors

    def key(self, name, default=None):
        return self.metadata.get(f"{self.metadata['general.architecture']}.{name}", default)


def read(path):
    data = memoryview(open(path, "rb").read())
    at = 0

    def take(form):
        nonlocal at
        value = struct.unpack_from("<" + form, data, at)
        at += struct.calcsize("<" + form)
        return value[0]

    def string():
        nonlocal at
        length = take("Q")
        at += length
        return bytes(data[at - length : at]).decode()

    def value(kind):
        if kind == STRING:
            return string()
        if kind == ARRAY:
            inner, count = take("I"), take("Q")
            return [value(inner) for _ in range(count)]
        return take(SCALARS[kind])

    assert take("4s") == MAGIC and take("I") == VERSION
    tensors, pairs = take("Q"), take("Q")
    metadata = {}
    for _ in range(pairs):
        key = string()
        metadata[key] = value(take("I"))
    infos = []
    for _ in range(tensors):
        name = string()
        shape = [take("Q") for _ in range(take("I"))]
        infos.append((name, shape[::-1], NAMES[take("I")], take("Q")))
    start = -(-at // ALIGNMENT) * ALIGNMENT
    read_tensors = {}
    for name, shape, form, offset in infos:
        _, unit, size = FORMATS[form]
        units = int(np.prod(shape)) // unit
        raw = np.frombuffer(data, np.uint8, units * size, start + offset)
        read_tensors[name] = dequantise(form, raw.reshape(units, size)).reshape(shape)
    return Model(metadata, read_tensors)


def write(path, metadata, tensors):
    """`metadata` is name: (value type, value); `tensors` is name: (format, shape, bytes)."""
    out = bytearray()

    def put(form, *values):
        out.extend(struct.pack("<" + form, *values))

    def string(text):
        put("Q", len(text.encode()))
        out.extend(text.encode())

    put("4sIQQ", MAGIC, VERSION, len(tensors), len(metadata))
    for key, (kind, value) in metadata.items():
        string(key)
        put("I", kind)
        string(value) if kind == STRING else put(SCALARS[kind], value)
    offset = 0
    for name, (form, shape, raw) in tensors.items():
        string(name)
        put("I", len(shape))
        put(f"{len(shape)}Q", *shape[::-1])
        put("IQ", FORMATS[form][0], offset)
        offset += -(-len(raw) // ALIGNMENT) * ALIGNMENT
    for _, _, raw in tensors.values():
        out.extend(bytes(-len(out) % ALIGNMENT))
        out.extend(raw)
    with open(path, "wb") as file:
        file.write(out)


def dequantise(form, units):
    """Weights of units, one unit a row of bytes; the columns of the spec's table in its order."""
    if form == "F32":
        return units.view("<f4").astype(np.float64)
    if form == "BF16":
        return (units.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if form == "F16":
        return half(units)
    return globals()[form.lower()](units)


def half(pair):
    return np.ascontiguousarray(pair).view("<f2").astype(np.float64)


def nibbles(q):
    """The low halves, then the high ones."""
    return np.concatenate([q & 15, q >> 4], axis=1).astype(np.int64)


def fifth_bits(h):
    """Bit i of a u32, for each i."""
    return np.unpackbits(h, axis=1, bitorder="little").astype(np.int64)


def q4_0(u):
    return half(u[:, :2]) * (nibbles(u[:, 2:]) - 8)


def q4_1(u):
    return half(u[:, :2]) * nibbles(u[:, 4:]) + half(u[:, 2:4])


def q5_0(u):
    return half(u[:, :2]) * (nibbles(u[:, 6:]) + 16 * fifth_bits(u[:, 2:6]) - 16)


def q5_1(u):
    return half(u[:, :2]) * (nibbles(u[:, 8:]) + 16 * fifth_bits(u[:, 4:8])) + half(u[:, 2:4])


def q8_0(u):
    return half(u[:, :2]) * u[:, 2:].view(np.int8)


def scales_and_mins(s):
    """Eight of each, from twelve bytes."""
    s = s.astype(np.int64)
    low, high = s[:, :4], s[:, 4:8]
    scales = np.concatenate([low & 63, (s[:, 8:] & 15) | (low >> 6 << 4)], axis=1)
    mins = np.concatenate([high & 63, (s[:, 8:] >> 4) | (high >> 6 << 4)], axis=1)
    return scales[:, :, None], mins[:, :, None]


def blocks_of_pairs(q):
    """64 weights in 32 bytes: the low halves are a block, the high ones the next."""
    q = q.reshape(len(q), 4, 1, 32)
    return np.concatenate([q & 15, q >> 4], axis=2).reshape(len(q), 8, 32).astype(np.int64)


def k_quant(u, n):
    d, m = half(u[:, :2])[:, :, None], half(u[:, 2:4])[:, :, None]
    scales, mins = scales_and_mins(u[:, 4:16])
    return (d * scales * n - m * mins).reshape(len(u), 256)


def q4_k(u):
    return k_quant(u, blocks_of_pairs(u[:, 16:]))


def q5_k(u):
    bits = np.unpackbits(u[:, 16:48, None], axis=2, bitorder="little").astype(np.int64)
    return k_quant(u, blocks_of_pairs(u[:, 48:]) + 16 * bits.transpose(0, 2, 1))


def q6_k(u):
    low = u[:, :128].reshape(-1, 2, 2, 32).astype(np.int64)
    low = np.concatenate([low & 15, low >> 4], axis=2)
    high = u[:, 128:192].reshape(-1, 2, 1, 32).astype(np.int64)
    high = np.concatenate([high >> 2 * b & 3 for b in range(4)], axis=2)
    n = (low + 16 * high - 32).reshape(-1, 16, 16)
    scales = u[:, 192:208].view(np.int8).astype(np.int64)[:, :, None]
    return half(u[:, 208:])* (scales * n).reshape(-1, 256)
