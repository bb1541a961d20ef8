"""Mixed load on one process for some minutes, while its classic models are swapped, unloaded and loaded.

python3 benches/soak.py [minutes]; the binary is that of TOKENMILL_BINARY, else the release build. Chats, streamed and
whole, take part where the language model's file is there; its KV cache is kept small so that it is full, and its memory
touched, in the first quarter of a long run. Every answer must be a 200 with the body it should have: one swapped model
is asked all the time, another only while it is loaded. Prints requests, orders, failures and memory; exits with 1 when
a request failed, when fewer than 20 orders were carried out, or when memory grew.
"""

import http.client
import json
import shutil
import struct
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/clients"))
from server_case import MODEL, MODEL_FILE, ROOT, Server  # noqa: E402

FIXTURES = ROOT / "predictive/tests/fixtures/xgboost"
FILES = [FIXTURES / "x176_binary_logistic.json", FIXTURES / "x176_dart_logistic.json"]
ROW = [0.5, -1.0, 0.25, 2.0]
JSON = {"content-type": "application/json"}
TIMEOUT_SECONDS = 30
SAMPLE_SECONDS = 2
# Between two requests of a client, so that a run leaves a machine usable.
PAUSE_SECONDS = 0.005
CHAT_PAUSE_SECONDS = 0.25
MIN_ORDERS = 20
# Of the first quarter's largest memory, in the last quarter.
MAX_GROWTH = 1.05


def tensor(**more):
    return {"name": "x", "shape": [1, 4], "datatype": "FP32", **more}


def v1(name):
    """A request of V1: path, headers, body."""
    return f"/v1/models/{name}:predict", JSON, json.dumps({"instances": [ROW]})


def v2(name):
    """A request of V2 in JSON."""
    return f"/v2/models/{name}/infer", JSON, json.dumps({"id": "1", "inputs": [tensor(data=ROW)]})


def v2_binary(name):
    """A request of V2 with raw tensors both ways."""
    head = {"id": "1", "parameters": {"binary_data_output": True}}
    head["inputs"] = [tensor(parameters={"binary_data_size": 16})]
    head = json.dumps(head).encode()
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return f"/v2/models/{name}/infer", headers, head + struct.pack("<4f", *ROW)


def chat(stream):
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": MODEL, "max_tokens": 8, "temperature": 0, "stream": stream, "messages": messages}
    return "/v1/chat/completions", JSON, json.dumps(body)


def order(verb, name):
    return f"/v2/repository/models/{name}/{verb}", JSON, "{}"


def put(directory, file):
    """The file as the model of a directory, never half written."""
    directory.mkdir(exist_ok=True)
    shutil.copy(file, directory / ".new")
    (directory / ".new").rename(directory / "model.json")


class Client:
    """One connection that is kept; it counts what it asks in the counters of the run."""

    def __init__(self, soak, kind):
        self.soak, self.kind = soak, kind
        self.connection = http.client.HTTPConnection(soak.address, timeout=TIMEOUT_SECONDS)

    def ask(self, request):
        """Asks once; the body of a good answer."""
        path, headers, body = request
        try:
            self.connection.request("POST", path, body, headers)
            answer = self.connection.getresponse()
            status, text = answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            status, text = type(error).__name__, repr(error).encode()
            self.connection.close()
        self.soak.counts[self.kind, status] += 1
        if status != 200:
            self.soak.fail(self.kind, status, text)
            return None
        return text


class Soak:
    """The loops of a run, and what they counted."""

    def __init__(self, server, root, end):
        self.address = server.url.removeprefix("http://")
        self.root, self.end = root, end
        self.counts = Counter()
        self.failures = []
        # Held by who asks the model that comes and goes, and by who sends it away.
        self.loaded = threading.Lock()

    def fail(self, *what):
        self.failures.append(what)

    def going(self):
        return time.monotonic() < self.end

    def swapped(self, kind, request):
        """Asks the model that is swapped; the two files answer differently, and nothing else is an answer."""
        client, seen = Client(self, kind), set()
        while self.going():
            seen.add(client.ask(request))
            time.sleep(PAUSE_SECONDS)
        if len(seen - {None}) != len(FILES):
            self.fail(kind, f"{len(seen)} different answers", b" ".join(filter(None, seen)))

    def passing(self):
        """Asks the model that comes and goes while it is there."""
        client = Client(self, "passing")
        while self.going():
            with self.loaded:
                client.ask(v2("passing"))
            time.sleep(PAUSE_SECONDS)

    def chats(self, stream):
        """The same greedy chat again and again has the same answer."""
        client, kind, first = Client(self, "streamed chat" if stream else "chat"), "chat", None
        while self.going():
            text = client.ask(chat(stream)) or b""
            said = self.said(text) if text else None
            first = first or said
            if text and said != first:
                self.fail(kind, "another answer", text)
            time.sleep(CHAT_PAUSE_SECONDS)

    @staticmethod
    def said(text):
        """The text of an answer, whole or streamed to its end."""
        if not text.startswith(b"data:"):
            return json.loads(text)["choices"][0]["message"]["content"]
        events = [line.removeprefix(b"data: ") for line in text.split(b"\n\n") if line]
        if events.pop() != b"[DONE]":
            return "cut"
        choices = [choice for event in events for choice in json.loads(event)["choices"]]
        return "".join(choice["delta"].get("content") or "" for choice in choices)

    def orders(self):
        """Swaps one model; unloads and loads the other."""
        client, turn = Client(self, "orders"), 0
        while self.going():
            turn += 1
            put(self.root / "swapped", FILES[turn % 2])
            client.ask(order("load", "swapped"))
            with self.loaded:
                client.ask(order("unload", "passing"))
                client.ask(order("load", "passing"))
            time.sleep(0.1)

    def loops(self, chats):
        """Every loop, not started."""
        targets = [(self.swapped, ("v1", v1("swapped"))), (self.swapped, ("binary", v2_binary("swapped")))]
        targets += [(self.swapped, ("v2", v2("swapped")))] * 2
        targets += [(self.passing, ()), (self.orders, ())]
        targets += [(self.chats, (False,)), (self.chats, (True,))] * chats
        return [threading.Thread(target=target, args=args) for target, args in targets]


def memory(server):
    """Resident MiB of the server."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def run(soak, server, minutes, chats):
    """Runs the loops; largest memory of each quarter."""
    quarters = [0.0] * 4
    start, threads, said = time.monotonic(), soak.loops(chats), 0
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        now = time.monotonic() - start
        mib = memory(server)
        quarter = min(3, int(4 * now / (60 * minutes)))
        quarters[quarter] = max(quarters[quarter], mib)
        if now >= said:
            said += 30
            answers = sum(soak.counts.values())
            print(f"{now:.0f} s: {mib:.1f} MiB, {answers} answers, {len(soak.failures)} failed", flush=True)
        time.sleep(SAMPLE_SECONDS)
    return quarters


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 5
    options = ["--no-access-log"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        put(root / "swapped", FILES[0])
        put(root / "passing", FILES[0])
        chats = MODEL_FILE.is_file()
        if chats:
            small = ["--max-model-len", "512", "--kv-cache-memory", "32MiB"]
            server = Server("--model-repository", folder, *small, *options)
        else:
            server = Server(*options, model=root, name=None)
        soak = Soak(server, root, time.monotonic() + 60 * minutes)
        try:
            quarters = run(soak, server, minutes, chats)
        finally:
            code = server.stop()
    for (kind, status), count in sorted(soak.counts.items(), key=str):
        print(f"{kind}: {count} times {status}")
    print(*soak.failures[:10], sep="\n")
    print("largest memory of each quarter, MiB:", *(f"{mib:.1f}" for mib in quarters))
    grew = quarters[3] > MAX_GROWTH * quarters[0]
    few = soak.counts["orders", 200] < MIN_ORDERS
    print(f"{len(soak.failures)} failed, {soak.counts['orders', 200]} orders, exit code {code}")
    sys.exit(bool(soak.failures or code or grew or few))


if __name__ == "__main__":
    main()
