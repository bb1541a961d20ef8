"""Starts the real binary for the tests of one class and ends it afterwards."""

import os
import queue
import re
import subprocess
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODEL_FILE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL = "tests"
START_SECONDS = 120


def binary():
    """The binary of TOKENMILL_BINARY, else the release build."""
    return Path(os.environ.get("TOKENMILL_BINARY", ROOT / "target/release/tokenmill"))


class Server:
    """A running `tokenmill serve`; without a name for the models of a repository."""

    def __init__(self, *options, model=MODEL_FILE, name=MODEL):
        arguments = ["serve", str(model)]
        if name is not None:
            arguments += ["--served-model-name", name]
        arguments += ["--host", "127.0.0.1", "--port", "0", "--grpc-port", "0", *options]
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [str(binary()), *arguments],
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.log = []
        ready = queue.Queue()
        self.reader = threading.Thread(target=self._read, args=(ready,), daemon=True)
        self.reader.start()
        try:
            self.url = ready.get(timeout=START_SECONDS)
        except queue.Empty:
            self.url = None
        if self.url is None:
            self.stop()
            raise RuntimeError("the server is not ready:\n" + "".join(self.log))

    def _read(self, ready):
        for line in self.process.stdout:
            self.log.append(line)
            if line.startswith("ready: "):
                ready.put(line.removeprefix("ready: ").split(",")[0])
        ready.put(None)

    @property
    def grpc(self):
        """Host and port of gRPC, from the log, which may come a little after the ready line."""
        end = time.monotonic() + 10
        while time.monotonic() < end:
            for line in list(self.log):
                plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
                if found := re.search(r"gRPC address=(\S+)", plain):
                    return found[1]
            time.sleep(0.01)
        raise RuntimeError("no gRPC port:\n" + "".join(self.log))

    def stop(self):
        """Ends it; the exit code."""
        self.process.terminate()
        try:
            code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join(timeout=10)
        self.process.stdout.close()
        return code


class ServerCase(unittest.TestCase):
    """Tests that share a server."""

    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.options)
        cls.base_url = cls.server.url + "/v1"

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        if code != 0:
            raise AssertionError(f"exit code {code}:\n" + "".join(cls.server.log))
