"""Mixed load on one process for some minutes, while its classic models are swapped, unloaded and loaded.

python3 benches/soak.py [minutes]; the binary is that of TOKENMILL_BINARY, else the release build. A chat takes part
where the language model's file is there. Prints requests, failures and memory; exits with 1 when a request failed.
"""

import http.client
import json
import shutil
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
ROWS = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.5, -1.0, 0.25, 2.0]}]}
CHAT = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Hello"}]}


def post(connection, path, body):
    """Status and body of a POST."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read()


def put(directory, file):
    """The file as the model of a directory, never half written."""
    directory.mkdir(exist_ok=True)
    shutil.copy(file, directory / ".new")
    (directory / ".new").rename(directory / "model.json")


class Soak:
    """Counts of answers by kind of request and status, until the end."""

    def __init__(self, server, end):
        self.address = server.url.removeprefix("http://")
        self.end = end
        self.counts = Counter()
        self.failures = []

    def loop(self, kind, steps, allowed=(200,)):
        """Posts what `steps` yields; another status than those allowed is a failure."""
        connection = http.client.HTTPConnection(self.address, timeout=120)
        for path, body in steps:
            if time.monotonic() > self.end:
                break
            try:
                status, text = post(connection, path, body)
            except (OSError, http.client.HTTPException) as error:
                status, text = "none", repr(error).encode()
                connection.close()
            self.counts[kind, status] += 1
            if status not in allowed:
                self.failures.append((kind, status, text[:200]))

    @staticmethod
    def always(path, body):
        while True:
            yield path, body

    @staticmethod
    def swaps(root):
        turn = 0
        while True:
            turn += 1
            put(root / "swapped", FILES[turn % 2])
            yield "/v2/repository/models/swapped/load", {}
            yield f"/v2/repository/models/passing/{'load' if turn % 2 else 'unload'}", {}
            time.sleep(0.05)


def memory(server):
    """Resident MiB of the server."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        put(root / "swapped", FILES[0])
        put(root / "passing", FILES[0])
        chats = MODEL_FILE.is_file()
        server = Server("--model-repository", folder) if chats else Server(model=root, name=None)
        soak = Soak(server, time.monotonic() + 60 * minutes)
        infer = "/v2/models/{}/infer".format
        loops = [("swapped", soak.always(infer("swapped"), ROWS)) for _ in range(4)]
        loops += [("passing", soak.always(infer("passing"), ROWS), (200, 404, 503)), ("orders", soak.swaps(root))]
        loops += [("chat", soak.always("/v1/chat/completions", CHAT))] * chats
        threads = [threading.Thread(target=soak.loop, args=loop) for loop in loops]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            print(f"{memory(server):.1f} MiB, {sum(soak.counts.values())} answers, {len(soak.failures)} failed")
            time.sleep(min(10, max(1, soak.end - time.monotonic())))
        print(dict(soak.counts), *soak.failures[:10], sep="\n")
        code = server.stop()
        print(f"{len(soak.failures)} failed, exit code {code}")
        sys.exit(bool(soak.failures) or code)


if __name__ == "__main__":
    main()
