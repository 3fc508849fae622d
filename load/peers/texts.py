#!/usr/bin/env python3
"""One text of 200 tokens: the gate over HTTP beside transformers and llama.cpp, in turns.

    texts.py --gate http://127.0.0.1:8080 --key KEY --gguf MODEL.gguf [--llama FOLDER] [--rounds 9] [--threads 2]

The gate must run `--threads` threads on the same machine, with Gemma 3 270M as its judge. transformers reads the
same weights, dequantised to fp32, one pass of the decoder without its head; llama.cpp reads the same GGUF, its
prompt processing. Of the gate both are told: from the request to the answer, and its judge's pass alone, which is
what the peers do (from `shieldgate_judge_run_seconds`). FOLDER is where `npm install --ignore-scripts node-llama-cpp@3` was run; without it llama.cpp is
left out. Texts are new in every round, so that nothing is recalled; each is cut to 200 tokens by the model's own
tokenizer. Prints medians and ratios (a peer's time / the gate's; above 1 the gate is faster), each with the spread
of its rounds.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

TOKENS = 200
WORDS = (
    "river market window garden paper engine summer quiet letter bridge mountain teacher winter bottle morning "
    "station village island planet copper simple narrow gentle early yellow doctor kitchen basket forest travel "
    "answer measure picture history machine weather finger travelled remembered considered between through"
).split()
# Every other word, as in prose: 200 tokens are some 1 000 characters, which the gate reads as one page.
SMALL_WORDS = "the of and to in a is that it was for on are as with his they at be this from I have or by".split()

LLAMA = """
import {getLlama} from "node-llama-cpp";
import {createInterface} from "node:readline";
const [gguf, threads] = process.argv.slice(2);
const llama = await getLlama({gpu: false, build: "never", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: gguf});
const context = await model.createContext({contextSize: 512, batchSize: 512, threads: Number(threads)});
const sequence = context.getSequence();
console.log(JSON.stringify({ready: true}));
for await (const line of createInterface({input: process.stdin})) {
  const tokens = [model.tokens.bos, ...model.tokenize(JSON.parse(line))];
  await sequence.clearHistory();
  const began = performance.now();
  await sequence.evaluateWithoutGeneratingNewTokens(tokens);
  console.log(JSON.stringify({tokens: tokens.length, ms: performance.now() - began}));
}
"""


class Gate:
    def __init__(self, url, key):
        self.url, self.key = url.rstrip("/") + "/v1/texts", key
        self.metrics = url.rstrip("/") + "/metrics"

    def time(self, text, policies=None):
        url = self.url + (f"?policies={policies}" if policies else "")
        body = json.dumps({"text": text}).encode()
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=120) as answer:
            verdict = json.load(answer)
        took = (time.perf_counter() - began) * 1000
        if verdict["cached"] or not verdict["policies"]:
            sys.exit("error: the gate recalled the text, or no policy judged it")
        return took

    def smoothed_run(self):
        """Milliseconds; each run counts one eighth."""
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        runs = [line for line in lines if line.startswith("shieldgate_judge_run_seconds{") and '"gemma3"' in line]
        return float(runs[0].rsplit(" ", 1)[1]) * 1000

    def time_both(self, text):
        before = self.smoothed_run()
        took = self.time(text)
        return took, 8 * self.smoothed_run() - 7 * before


class Transformers:
    def __init__(self, gguf, threads):
        import torch
        from transformers import AutoModel, AutoTokenizer

        torch.set_num_threads(threads)
        folder, file = str(gguf.parent), gguf.name
        self.torch = torch
        self.tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
        self.model = AutoModel.from_pretrained(folder, gguf_file=file, dtype=torch.float32).eval()

    def time(self, text):
        began = time.perf_counter()
        with self.torch.inference_mode():
            self.model(**self.tokenizer(text, return_tensors="pt"), use_cache=False)
        return (time.perf_counter() - began) * 1000


class Llama:
    def __init__(self, gguf, threads, folder):
        script = folder / ".texts-peer.mjs"
        script.write_text(LLAMA)
        command = ["node", str(script), str(gguf), str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, text=True)
        if not json.loads(self.process.stdout.readline() or "{}").get("ready"):
            sys.exit("error: llama.cpp did not start")

    def time(self, text):
        self.process.stdin.write(json.dumps(text) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)


def text_of(tokenizer, seed):
    words, rng = [], random.Random(seed)
    while len(tokenizer(" ".join(words))["input_ids"]) < TOKENS:
        words.append(rng.choice(SMALL_WORDS))
        words.append(rng.choice(WORDS) + ("." if rng.random() < 0.2 else ""))
    return " ".join(words)


def spread(numbers, digits):
    low, high = min(numbers), max(numbers)
    return f"{statistics.median(numbers):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--gguf", required=True, type=Path)
    parser.add_argument("--llama", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    options.gguf = options.gguf.resolve()
    gate = Gate(options.gate, options.key)
    peers = {"transformers fp32": Transformers(options.gguf, options.threads)}
    tokenizer = peers["transformers fp32"].tokenizer
    if options.llama:
        peers["llama.cpp"] = Llama(options.gguf, options.threads, options.llama)
    seed = time.time_ns()
    ours, passes, one, of_peers = [], [], [], {name: [] for name in peers}
    for round in range(options.rounds + 1):
        first, second, third = (text_of(tokenizer, f"{seed} {round} {which}") for which in "abc")
        (took, run), alone = gate.time_both(first), gate.time(second, "hate-text")
        of_round = {name: peer.time(third) for name, peer in peers.items()}
        if round == 0:
            continue  # Warms up.
        ours.append(took)
        passes.append(run)
        one.append(alone)
        for name, ms in of_round.items():
            of_peers[name].append(ms)
    print(f"gate over HTTP, all policies: {spread(ours, 0)} ms; one policy: {spread(one, 0)} ms")
    print(f"its judge's pass, all policies: {spread(passes, 0)} ms")
    print(f"all policies / one: {spread([a / b for a, b in zip(ours, one)], 2)}")
    for name, times in of_peers.items():
        over_http, of_pass = ([peer / own for peer, own in zip(times, owns)] for owns in (ours, passes))
        print(f"{name}: {spread(times, 0)} ms, {spread(of_pass, 2)} of the pass, {spread(over_http, 2)} of the whole")
    if "llama.cpp" in peers:
        peers["llama.cpp"].close()


if __name__ == "__main__":
    main()
