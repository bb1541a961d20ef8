"""What the tests of classic models share: cases that the libraries wrote, and a process that serves them beside a chat."""

import json
import shutil
import tempfile
import threading
import unittest
from pathlib import Path

import numpy as np
import openai
from server_case import MODEL, MODEL_FILE, ROOT, Server

FIXTURES = ROOT / "predictive/tests/fixtures"
# How long a chat may take to begin.
CHAT_SECONDS = 120


def case(stem):
    """What a library was asked, what it answered, and the file of its model."""
    path = FIXTURES / f"{stem}.case.json"
    facts = json.loads(path.read_text())
    facts["path"] = path.parent / facts["model"]
    return facts


def rows(facts, dtype):
    """The input of a case of numbers."""
    given = facts["input"]
    return np.array([float(value) for value in given["data"]], dtype=dtype).reshape(given["shape"])


def expected(facts, method):
    """What the library answered: an array of numbers or of texts."""
    answer = facts["expected"][method]
    texts = answer["dtype"] == "BYTES"
    values = answer["data"] if texts else [float(value) for value in answer["data"]]
    return np.array(values, dtype=object if texts else None).reshape(answer["shape"])


def place(facts, directory):
    """The model of a case as the model in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(facts["path"], directory / f"model{facts['path'].suffix}")


class MixedCase(unittest.TestCase):
    """Tests that share a process which serves a language model and a repository of classic ones."""

    # Name in the repository and stem of the case.
    models = {}
    options = ()

    @classmethod
    def setUpClass(cls):
        if not MODEL_FILE.is_file():
            raise RuntimeError(f"{MODEL_FILE} is not there: `cargo xtask model` gets it")
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.cases = {name: case(stem) for name, stem in cls.models.items()}
        for name, facts in cls.cases.items():
            place(facts, cls.root / name)
        cls.prepare()
        cls.server = Server("--model-repository", str(cls.root), *cls.options)
        cls.addClassCleanup(cls._stop)

    @classmethod
    def prepare(cls):
        """Puts more models into `root`."""

    @classmethod
    def _stop(cls):
        code = cls.server.stop()
        if code != 0:
            raise AssertionError(f"exit code {code}:\n" + "".join(cls.server.log))


class Chats:
    """Chats one after the other in the background, so that what runs inside `with` runs beside one.

    It begins when the first token is there. Its end checks that every chat was answered to the end."""

    def __init__(self, server):
        self.client = openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)
        self.answers, self.error = [], None
        self.running, self.enough = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            while not self.enough.is_set():
                self.answers.append(self._chat())
        except Exception as error:  # Handed to the test by __exit__.
            self.error = error
        finally:
            self.running.set()

    def _chat(self):
        messages = [{"role": "user", "content": "What is the capital of France?"}]
        stream = self.client.chat.completions.create(
            model=MODEL, messages=messages, max_tokens=24, temperature=0, stream=True
        )
        text, reason = "", None
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                reason = choice.finish_reason or reason
            if text:
                self.running.set()
        return text, reason

    def __enter__(self):
        self.thread.start()
        if not self.running.wait(CHAT_SECONDS):
            raise AssertionError("no chat began")
        return self

    def __exit__(self, kind, _, __):
        self.enough.set()
        self.thread.join(CHAT_SECONDS)
        self.client.close()
        if kind is not None:
            return
        if self.error is not None:
            raise self.error
        if self.thread.is_alive() or not self.answers:
            raise AssertionError("a chat was not answered")
        for text, reason in self.answers:
            if "Paris" not in text or reason not in ("stop", "length"):
                raise AssertionError(f"a chat was answered {text!r}, {reason}")
