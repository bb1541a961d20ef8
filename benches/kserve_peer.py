"""The same requests to KServe's scikit-learn server and to ours, in turns on the same cores.

python benches/kserve_peer.py [--rounds 3] [--seconds 5] [--connections 32]

Needs `kserve` and `scikit-learn` in this interpreter, and a release build of tokenmill (or TOKENMILL_BINARY), which is
the server, and the generator of load for both (`tokenmill bench --body`). KServe's side is its Python package with the
predictor of its sklearn runtime: one process, one worker, its defaults. Both serve the same two joblib files, trained
here on iris with fixed seeds; both log as they do by default, into nothing. The request is the two rows of KServe's
iris example. First the answers are compared, then every case is measured in each round, one server after the other.

Prints, by case, the median of the rounds with minimum and maximum: requests per second, p50 and p99 in milliseconds,
processor time per request of the server and of the generator in microseconds, and the ratio of the requests per second.
"""

import argparse
import json
import os
import resource
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROWS = [[6.8, 2.8, 4.8, 1.4], [6.0, 3.4, 4.5, 1.6]]
START_SECONDS = 120
TICKS = os.sysconf("SC_CLK_TCK")


def train(folder):
    """Writes the two models, each in a directory of its own."""
    import joblib
    from sklearn.datasets import load_iris
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    x, y = load_iris(return_X_y=True)
    models = {"logistic": LogisticRegression(max_iter=1000), "forest": RandomForestClassifier(100, random_state=0)}
    for name, model in models.items():
        (folder / name).mkdir()
        joblib.dump(model.fit(x, y), folder / name / "model.joblib")


def serve_peer(folder):
    """KServe's server with the predictor of its sklearn runtime; its flags are read by kserve itself."""
    import joblib
    import kserve
    from kserve.errors import InferenceError
    from kserve.utils.utils import get_predict_input, get_predict_response

    class SKLearnModel(kserve.Model):
        def __init__(self, name, file):
            super().__init__(name)
            self.file = file

        def load(self):
            self._model = joblib.load(self.file)
            self.ready = True
            return self.ready

        def predict(self, payload, headers=None):
            try:
                instances = get_predict_input(payload)
                proba = os.environ.get("PREDICT_PROBA", "false").lower() == "true"
                if proba and hasattr(self._model, "predict_proba"):
                    result = self._model.predict_proba(instances)
                else:
                    result = self._model.predict(instances)
                return get_predict_response(payload, result, self.name)
            except Exception as error:
                raise InferenceError(str(error)) from error

    models = [SKLearnModel(path.parent.name, path) for path in sorted(folder.glob("*/model.joblib"))]
    for model in models:
        model.load()
    kserve.ModelServer().start(models)


def v2_json():
    data = [value for row in ROWS for value in row]
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "data": data}
    return json.dumps({"id": "1", "inputs": [tensor]}).encode(), {}


def v2_binary():
    tensor = {"name": "input-0", "shape": [2, 4], "datatype": "FP32", "parameters": {"binary_data_size": 32}}
    head = json.dumps({"id": "1", "inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
    return head + struct.pack("<8f", *(value for row in ROWS for value in row)), headers


def v1_json():
    return json.dumps({"instances": ROWS}).encode(), {}


CASES = {
    "V2 JSON, logistic regression": ("/v2/models/logistic/infer", v2_json()),
    "V2 JSON, forest of 100 trees": ("/v2/models/forest/infer", v2_json()),
    "V2 binary, logistic regression": ("/v2/models/logistic/infer", v2_binary()),
    "V1 JSON, logistic regression": ("/v1/models/logistic:predict", v1_json()),
}


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """A server process that is ready."""

    def __init__(self, name, command, port):
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        nowhere = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen([str(word) for word in command], **nowhere)
        end = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if time.monotonic() > end or self.process.poll() is not None:
                self.stop()
                raise RuntimeError(f"{name} is not ready; {' '.join(map(str, command))}")
            time.sleep(0.2)

    def is_ready(self):
        try:
            for model in ("logistic", "forest"):
                urllib.request.urlopen(f"{self.url}/v2/models/{model}/ready", timeout=5).read()
            return True
        except OSError:
            return False

    def processor_seconds(self):
        """User and system time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def ask(self, path, body, headers):
        """One answer: the numbers in it."""
        headers = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(self.url + path, body, headers)
        answer = urllib.request.urlopen(request, timeout=30)
        text = answer.read()
        if length := answer.headers.get("Inference-Header-Content-Length"):
            head, raw = json.loads(text[: int(length)]), text[int(length) :]
            code = {"INT64": "q", "INT32": "i", "FP64": "d", "FP32": "f"}[head["outputs"][0]["datatype"]]
            return list(struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw))
        answer = json.loads(text)
        return answer["predictions"] if "predictions" in answer else answer["outputs"][0]["data"]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(binary, server, case, options, folder):
    """One run of one case: figures by name."""
    path, (body, headers) = CASES[case]
    (folder / "body").write_bytes(body)
    command = [binary, "bench", "--url", server.url + path, "--body", folder / "body", "--json", folder / "report"]
    command += ["-c", options.connections, "--duration", options.seconds, "--warmup", 20]
    for name, value in headers.items():
        command += ["--header", f"{name}: {value}"]
    ours, theirs = children_seconds(), server.processor_seconds()
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    ours, theirs = children_seconds() - ours, server.processor_seconds() - theirs
    report = json.loads((folder / "report").read_text())
    if report["failed"]:
        raise RuntimeError(f"{server.name}, {case}: {report['errors']}")
    return {
        "requests/s": report["requests_per_second"],
        "p50 ms": report["latency"]["p50"] * 1e3,
        "p99 ms": report["latency"]["p99"] * 1e3,
        "server us": theirs / report["answered"] * 1e6,
        "client us": ours / report["answered"] * 1e6,
    }


def shown(values):
    """Median [minimum, maximum]."""
    digits = 0 if min(values) >= 100 else 2
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"


def report(runs, names):
    for case in CASES:
        print(f"\n{case}")
        for name in names:
            figures = runs[case, name]
            cells = (f"{figure} {shown([run[figure] for run in figures])}" for figure in figures[0])
            print(f"  {name:<10}", *cells, sep="  ")
        medians = [statistics.median(run["requests/s"] for run in runs[case, name]) for name in names]
        print(f"  ratio {medians[1] / medians[0]:.1f}")


def main(options):
    binary = Path(os.environ.get("TOKENMILL_BINARY", ROOT / "target/release/tokenmill"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        models.mkdir()
        train(models)
        servers = []
        try:
            port, grpc = free_port(), free_port()
            peer = [sys.executable, __file__, "--peer", models, "--http_port", port, "--grpc_port", grpc]
            servers.append(Server("kserve", peer, port))
            port = free_port()
            own = [binary, "serve", models, "--host", "127.0.0.1", "--port", port, "--grpc-port", 0]
            servers.append(Server("tokenmill", own, port))
            for case, (path, request) in CASES.items():
                answers = [server.ask(path, *request) for server in servers]
                if answers[0] != answers[1]:
                    raise RuntimeError(f"{case}: {answers[0]} of KServe is not {answers[1]}")
            runs = {(case, server.name): [] for case in CASES for server in servers}
            for _ in range(options.rounds):
                for case in CASES:
                    for server in servers:
                        runs[case, server.name].append(measure(binary, server, case, options, folder))
            report(runs, [server.name for server in servers])
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peer", type=Path, help="serve the models of this folder with KServe (used by this script)")
    options, _ = parser.parse_known_args()
    if options.peer:
        serve_peer(options.peer)
    else:
        main(options)
