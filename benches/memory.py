"""Peak memory against the plan: fills the KV cache to its last block and compares what the process took.

    python benches/memory.py [--binary FILE] [--model FILE] [-- FLAGS OF serve]

Starts the server with the flags, sends prompts of random tokens side by side until cached blocks have to be
replaced, and reads the peak (VmHWM) of the process. The plan is what `tokenmill inspect --json`
says with the same flags. Exits with 1 when the peak is above 1.05 times the plan and 64 MiB.
"""

import argparse
import json
import pathlib
import random
import re
import subprocess
import sys
import threading
import urllib.request

MIB = 1 << 20
FLAGS = ["--max-model-len", "1024", "--max-num-seqs", "4", "--kv-cache-memory-bytes", "96MiB"]


def inspect(binary, model, flags):
    text = subprocess.run([binary, "inspect", "--json", model, *flags], check=True, capture_output=True).stdout
    return json.loads(text)


def start(binary, model, flags):
    command = [binary, "serve", model, "--host", "127.0.0.1", "--port", "0", "--no-access-log", *flags]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in server.stdout:
        if line.startswith("ready: "):
            threading.Thread(target=server.stdout.read, daemon=True).start()
            return server, line.split()[1].rstrip(",")
    sys.exit("the server did not start; its log is above")


def fetch(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return answer.read().decode()


def evictions(url):
    """Cached blocks that were replaced: the first one is replaced when every block holds something."""
    return int(re.search(r"^tokenmill_kv_evictions_total\{.*\} (\d+)$", fetch(url + "/metrics"), re.M).group(1))


def status(server, field):
    text = pathlib.Path(f"/proc/{server.pid}/status").read_text()
    return int(re.search(rf"^{field}:\s+(\d+) kB", text, re.M).group(1)) * 1024


def round_of_requests(url, facts, source, errors):
    """As many sequences side by side as a step takes, each as long as the model allows."""
    length = facts["context"]["served"]
    generated = min(32, length // 4)
    prompts = [
        [source.randrange(facts["vocabulary"]) for _ in range(length - generated)]
        for _ in range(facts["step"]["max_sequences"])
    ]

    def ask(prompt):
        body = {"prompt": prompt, "max_tokens": generated, "ignore_eos": True, "logprobs": 5, "temperature": 1}
        try:
            fetch(url + "/v1/completions", body)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask, args=[prompt]) for prompt in prompts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--binary", default="target/release/tokenmill")
    parser.add_argument("--model", default="models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("flags", nargs="*", default=FLAGS)
    options = parser.parse_args()
    facts = inspect(options.binary, options.model, options.flags)
    server, url = start(options.binary, options.model, options.flags)
    source, errors = random.Random(1), []
    try:
        idle = status(server, "VmHWM")
        rounds = 0
        while evictions(url) == 0:
            round_of_requests(url, facts, source, errors)
            rounds += 1
            if errors or rounds > 100:
                sys.exit(f"the cache was not filled in {rounds} rounds: {errors[:1]}")
        peak, replaced = status(server, "VmHWM"), evictions(url)
    finally:
        server.terminate()
        server.wait()
    plan = facts["memory"]["total"]
    limit = plan * 1.05 + 64 * MIB
    for part, size in facts["memory"].items():
        print(f"{part:<12}{size / MIB:10.1f} MiB")
    print(f"{'at ready':<12}{idle / MIB:10.1f} MiB")
    print(f"{'peak':<12}{peak / MIB:10.1f} MiB after {rounds} rounds, {replaced} blocks replaced")
    print(f"{'allowed':<12}{limit / MIB:10.1f} MiB, 1.05 x the plan and 64 MiB")
    sys.exit(0 if peak <= limit else 1)


if __name__ == "__main__":
    main()
