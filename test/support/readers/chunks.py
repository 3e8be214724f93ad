"""Reads chunks as docs/format.md says, and nothing else: chunks.py BROKERS TOPIC

Prints a JSON object: by container and source the lines in base64, what is told as lost, and whether the run's end agrees with both.
"""
import base64
import json
import struct
import subprocess
import sys

import msgpack

brokers, topic = sys.argv[1:]
# %R: the length of the value, 4 bytes, big endian; %s: the value.
kcat = ["kcat", "-C", "-q", "-e", "-b", brokers, "-t", topic, "-o", "beginning", "-f", "%R%s"]
records = subprocess.run(kcat, stdout=subprocess.PIPE, check=True).stdout

runs = {}
at = 0
while at < len(records):
    (length,) = struct.unpack_from(">i", records, at)
    chunk = msgpack.unpackb(records[at + 4 : at + 4 + length])
    at += 4 + length
    assert chunk["v"] == 1
    run = runs.setdefault(chunk["run"], {"name": chunk["ctr"]["name"], "lines": [[], []], "next": [1, 1], "lost": [], "end": None})
    for lost in chunk.get("lost", []):
        if lost["from"] == run["next"][lost["src"]]:
            run["next"][lost["src"]] += lost["count"]
            run["lost"].append([lost["src"], lost["from"], lost["count"], lost["reason"]])
    count = len(chunk["len"]) // 4
    lengths = struct.unpack(f"<{count}I", chunk["len"])
    width = len(chunk["dt"]) // count if count else 4
    times = struct.unpack(f"<{count}{'i' if width == 4 else 'q'}", chunk["dt"])
    number = list(chunk["first"])
    position = 0
    for i in range(count):
        source = chunk["src"][i // 8] >> (i % 8) & 1
        line = chunk["data"][position : position + lengths[i]]
        position += lengths[i]
        assert chunk["t0"] + times[i] > 1_600_000_000 * 10**9
        # Copies of what was read already have a number that is not above it.
        if number[source] == run["next"][source]:
            run["lines"][source].append(line)
            run["next"][source] += 1
        number[source] += 1
    assert position == len(chunk["data"])
    run["end"] = chunk.get("end") or run["end"]

json.dump(
    {
        run["name"]: {
            "stdout": [base64.b64encode(line).decode() for line in run["lines"][0]],
            "stderr": [base64.b64encode(line).decode() for line in run["lines"][1]],
            "lost": run["lost"],
            "whole": run["end"] == [run["next"][0] - 1, run["next"][1] - 1],
        }
        for run in runs.values()
    },
    sys.stdout,
)
