"""KServe's own clients, over REST and gRPC, while a chat runs in the same process.

Its own process: `kserve` and `tritonclient.grpc` both register the package `inference` with protobuf, which refuses the second."""

import asyncio
import json
import logging
import shutil
import unittest

import grpc
import httpx
import numpy as np
from classic import FIXTURES, Chats, MixedCase, expected, rows
from kserve import InferInput, InferRequest, InferenceGRPCClient, InferenceRESTClient
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput
from server_case import ROOT

# The client logs every failed call, the expected ones too.
logging.getLogger("kserve.trace").setLevel(logging.CRITICAL)
# Requests of one client at a time.
SIDE_BY_SIDE = 8
# The files of alt-profanity-check, which `cargo xtask model` gets, and what the package answers.
PROFANITY = ROOT / "models/alt-profanity-check"
PROFANITY_CASE = json.loads((FIXTURES / "profanity.json").read_text())


class KserveClients(MixedCase):
    models = {
        "numbers": "xgboost/x176_binary_logistic",
        "labels": "sklearn_models/LogisticRegression_three_191",
        "texts": "sklearn_prep/19_pipeline_text",
    }

    @classmethod
    def prepare(cls):
        shutil.copytree(PROFANITY, cls.root / "profanity")

    def rest(self, protocol):
        return InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))

    def grpc(self):
        return InferenceGRPCClient(self.server.grpc, retries=0)

    def request(self, model, array, datatype, binary, outputs=(), parameters=None):
        given = InferInput("x", list(array.shape), datatype)
        given.set_data_from_numpy(array, binary_data=binary)
        wanted = [RequestedOutput(name, {"binary_data": binary}) for name in outputs]
        return InferRequest(model, [given], request_id="r-1", request_outputs=wanted or None, parameters=parameters)

    def beside_a_chat(self, ask):
        """Runs `ask` several times side by side, with a chat beside it."""

        async def all():
            return await asyncio.gather(*(ask() for _ in range(SIDE_BY_SIDE)))

        with Chats(self.server):
            return asyncio.run(all())

    def test_rest_v1(self):
        numbers, labels, texts = (self.cases[name] for name in ("numbers", "labels", "texts"))

        async def ask():
            async with self.rest("v1") as client:
                self.assertTrue(await client.is_server_live(self.server.url))
                self.assertTrue(await client.is_model_ready(self.server.url, "numbers"))
                given = rows(numbers, np.float64).astype(object)
                given[given != given] = None
                bodies = {
                    "numbers": given.tolist(),
                    "labels": rows(labels, np.float64).tolist(),
                    "texts": texts["input"]["data"],
                }
                ask = lambda name: client.infer(self.server.url, {"instances": bodies[name]}, model_name=name)
                return [(await ask(name))["predictions"] for name in bodies]

        for numbers_got, labels_got, texts_got in self.beside_a_chat(ask):
            np.testing.assert_allclose(numbers_got, expected(numbers, "default"), rtol=1e-6)
            self.assertEqual(labels_got, expected(labels, "predict").tolist())
            self.assertEqual(texts_got, expected(texts, "predict").tolist())

    def test_rest_v2_in_json_and_raw(self):
        numbers, labels, texts = (self.cases[name] for name in ("numbers", "labels", "texts"))
        given = {
            "numbers": (rows(numbers, np.float32), "FP32"),
            "labels": (rows(labels, np.float64), "FP64"),
            "texts": (np.array(texts["input"]["data"], dtype=object), "BYTES"),
        }

        for binary in (False, True):

            async def ask():
                async with self.rest("v2") as client:
                    self.assertTrue(await client.is_server_live(self.server.url))
                    self.assertTrue(await client.is_server_ready(self.server.url))
                    answers = []
                    for name, (array, datatype) in given.items():
                        self.assertTrue(await client.is_model_ready(self.server.url, name))
                        request = self.request(name, array, datatype, binary, ["output-0"])
                        answers.append(await client.infer(self.server.url, request, model_name=name))
                    return answers

            for numbers_got, labels_got, texts_got in self.beside_a_chat(ask):
                self.assertEqual(numbers_got.id, "r-1")
                self.assertEqual(numbers_got.outputs[0].datatype, "FP32")
                np.testing.assert_allclose(numbers_got.outputs[0].as_numpy(), expected(numbers, "default"), rtol=1e-6)
                self.assertEqual(plain(labels_got), expected(labels, "predict").tolist())
                self.assertEqual(plain(texts_got), expected(texts, "predict").tolist())

    def test_rest_v2_gives_methods_as_outputs(self):
        labels = self.cases["labels"]

        async def ask():
            async with self.rest("v2") as client:
                request = self.request("labels", rows(labels, np.float64), "FP64", True, ["predict_proba", "predict"])
                return await client.infer(self.server.url, request, model_name="labels")

        answer = asyncio.run(ask())
        self.assertEqual([output.name for output in answer.outputs], ["predict_proba", "predict"])
        np.testing.assert_allclose(answer.outputs[0].as_numpy(), expected(labels, "predict_proba"), rtol=1e-9)

    def test_grpc_typed_and_raw(self):
        numbers, labels, texts = (self.cases[name] for name in ("numbers", "labels", "texts"))
        given = {
            "numbers": (rows(numbers, np.float32), "FP32"),
            "labels": (rows(labels, np.float64), "FP64"),
            "texts": (np.array([text.encode() for text in texts["input"]["data"]], dtype=object), "BYTES"),
        }

        def request(name, binary):
            array, datatype = given[name]
            if binary:
                return self.request(name, array, datatype, True)
            typed = InferInput("x", list(array.shape), datatype, data=array.ravel().tolist())
            return InferRequest(name, [typed], request_id="r-1")

        for binary in (False, True):

            async def ask():
                async with self.grpc() as client:
                    self.assertTrue(await client.is_server_live())
                    self.assertTrue(await client.is_server_ready())
                    self.assertTrue(await client.is_model_ready("numbers"))
                    return [await client.infer(request(name, binary)) for name in given]

            for numbers_got, labels_got, texts_got in self.beside_a_chat(ask):
                self.assertEqual(numbers_got.id, "r-1")
                np.testing.assert_allclose(numbers_got.outputs[0].as_numpy(), expected(numbers, "default"), rtol=1e-6)
                self.assertEqual(plain(labels_got), expected(labels, "predict").tolist())
                self.assertEqual(plain(texts_got), expected(texts, "predict").tolist())

    def test_texts_are_answered_as_the_package_that_holds_the_model(self):
        texts, labels, wanted = (PROFANITY_CASE[name] for name in ("texts", "predict", "predict_prob"))
        outputs = ["predict", "predict_proba"]
        array = np.array(texts, dtype=object)

        async def ask():
            async with self.rest("v1") as client:
                v1 = await client.infer(self.server.url, {"instances": texts}, model_name="profanity")
            answers = []
            async with self.rest("v2") as client:
                for binary in (False, True):
                    request = self.request("profanity", array, "BYTES", binary, outputs)
                    answers.append(await client.infer(self.server.url, request, model_name="profanity"))
            async with self.grpc() as client:
                for typed in (True, False):
                    given = InferInput("x", [len(texts)], "BYTES", data=list(texts) if typed else None)
                    if not typed:
                        given.set_data_from_numpy(array, binary_data=True)
                    wanted = [RequestedOutput(name) for name in outputs]
                    request = InferRequest("profanity", [given], request_id="r-1", request_outputs=wanted)
                    answers.append(await client.infer(request))
            return v1["predictions"], answers

        with Chats(self.server):
            v1, answers = asyncio.run(ask())
        self.assertEqual(v1, labels)
        for answer in answers:
            got = {output.name: output.as_numpy() for output in answer.outputs}
            self.assertEqual(got["predict"].tolist(), labels)
            np.testing.assert_allclose(got["predict_proba"][:, 1], wanted, rtol=0, atol=1e-9)

    def test_errors_reach_the_caller(self):
        wrong = self.request("numbers", np.zeros((1, 2), np.float32), "FP32", False)
        unknown = self.request("nothing", np.zeros((1, 4), np.float32), "FP32", True)

        async def rest(protocol, name, data):
            async with self.rest(protocol) as client:
                await client.infer(self.server.url, data, model_name=name)

        async def rpc(request):
            async with self.grpc() as client:
                await client.infer(request)

        for protocol, name, data, status, text in [
            ("v1", "numbers", {"instances": [[1.0, 2.0]]}, 400, "2 columns"),
            ("v1", "numbers", {"instances": "rows"}, 400, 'Expected "instances" to be a list'),
            ("v1", "nothing", {"instances": [[1.0]]}, 404, "Model with name nothing does not exist."),
            ("v2", "numbers", wrong, 400, "2 columns"),
            ("v2", "nothing", unknown, 404, "Model with name nothing does not exist."),
        ]:
            with self.subTest(protocol=protocol, text=text):
                with self.assertRaises(httpx.HTTPStatusError) as caught:
                    asyncio.run(rest(protocol, name, data))
                self.assertEqual(caught.exception.response.status_code, status)
                self.assertIn(text, str(caught.exception))
        for request, code, text in [
            (wrong, grpc.StatusCode.INVALID_ARGUMENT, "2 columns"),
            (unknown, grpc.StatusCode.NOT_FOUND, "Model with name nothing does not exist."),
        ]:
            with self.subTest(code=code), self.assertRaises(grpc.RpcError) as caught:
                asyncio.run(rpc(request))
            self.assertEqual(caught.exception.code(), code)
            self.assertIn(text, caught.exception.details())


def plain(answer):
    """The texts of the first output."""
    texts = answer.outputs[0].as_numpy().ravel().tolist()
    return [text.decode() if isinstance(text, bytes) else text for text in texts]


if __name__ == "__main__":
    unittest.main()
