"""Triton's gRPC client, the health service and reflection against a repository of models that the libraries wrote."""

import asyncio
import json
import queue
import shutil
import tempfile
import unittest
import urllib.request
from pathlib import Path

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from server_case import MODEL, MODEL_FILE, ROOT, Server
from tritonclient.grpc import service_pb2, service_pb2_grpc

FIXTURES = ROOT / "predictive/tests/fixtures"
NUMBERS = "xgboost/x176_binary_logistic"
OTHER_NUMBERS = "xgboost/x176_dart_logistic"
TEXTS = "sklearn_models/LogisticRegression_three_191"
SERVICE = "inference.GRPCInferenceService"
MESSAGE_LIMIT = 1 << 20


def case(stem):
    """What a library was asked, and the file of its model."""
    path = FIXTURES / f"{stem}.case.json"
    facts = json.loads(path.read_text())
    facts["path"] = path.parent / facts["model"]
    return facts


def rows(facts, dtype):
    """The input of a case."""
    given = facts["input"]
    return np.array([float(value) for value in given["data"]], dtype=dtype).reshape(given["shape"])


def place(facts, directory):
    """The model of a case as the model in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(facts["path"], directory / f"model{facts['path'].suffix}")


class GrpcCase(unittest.TestCase):
    """Tests that share a server of a repository; beside a language model where its file is there."""

    options = ("--grpc-max-receive-message-length", str(MESSAGE_LIMIT))

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.root = Path(folder.name)
        cls.numbers, cls.texts = case(NUMBERS), case(TEXTS)
        place(cls.numbers, cls.root / "numbers")
        place(cls.texts, cls.root / "texts")
        place(cls.numbers, cls.root / "versions/1")
        place(case(OTHER_NUMBERS), cls.root / "versions/2")
        cls.rows = rows(cls.numbers, np.float32)
        cls.expected = [float(value) for value in cls.numbers["expected"]["default"]["data"]]
        cls.chats = MODEL_FILE.is_file()
        if cls.chats:
            cls.server = Server("--model-repository", str(cls.root), *cls.options)
        else:
            cls.server = Server(*cls.options, model=cls.root, name=None)
        cls.addClassCleanup(cls.server.stop)
        cls.client = triton.InferenceServerClient(cls.server.grpc)
        cls.addClassCleanup(cls.client.close)
        cls.channel = grpc.insecure_channel(cls.server.grpc)
        cls.addClassCleanup(cls.channel.close)
        cls.stub = service_pb2_grpc.GRPCInferenceServiceStub(cls.channel)

    def tensor(self, values=None, datatype="FP32"):
        values = self.rows if values is None else values
        given = triton.InferInput("x", list(values.shape), datatype)
        given.set_data_from_numpy(values)
        return given

    def typed(self, datatype, shape, model="numbers", **contents):
        """A request of typed contents, as KServe's client makes them."""
        request = service_pb2.ModelInferRequest(model_name=model)
        tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
        for name, values in contents.items():
            getattr(tensor.contents, name).extend(values)
        return request

    def refused(self, code, pattern, call, *arguments, **options):
        """The call fails with this code and a text that names what is wrong."""
        with self.assertRaises((grpc.RpcError, triton.InferenceServerException)) as caught:
            call(*arguments, **options)
        error = caught.exception
        status = str(error.code()) if isinstance(error, grpc.RpcError) else error.status()
        text = error.details() if isinstance(error, grpc.RpcError) else error.message()
        self.assertEqual(status, f"StatusCode.{code}", text)
        self.assertRegex(text, pattern)


class Inference(GrpcCase):
    def test_numbers_are_the_librarys_raw_and_typed(self):
        raw = self.client.infer("numbers", [self.tensor()], request_id="r-1")
        self.assertEqual(raw.get_response().id, "r-1")
        np.testing.assert_allclose(raw.as_numpy("output-0"), self.expected, rtol=1e-6)
        answer = self.stub.ModelInfer(self.typed("FP32", self.rows.shape, fp32_contents=self.rows.ravel()))
        self.assertEqual(answer.raw_output_contents, [])
        self.assertNotEqual(answer.id, "")
        np.testing.assert_allclose(answer.outputs[0].contents.fp32_contents, self.expected, rtol=1e-6)

    def test_typed_contents_of_every_datatype_are_read(self):
        fields = {"BOOL": "bool", "INT64": "int64", "UINT64": "uint64", "FP32": "fp32", "FP64": "fp64"}
        fields |= dict.fromkeys(["INT8", "INT16", "INT32"], "int")
        fields |= dict.fromkeys(["UINT8", "UINT16", "UINT32"], "uint")
        wanted = self.client.infer("numbers", [self.tensor(np.array([[0, 1, 1, 0]], np.float32))])
        for datatype, field in fields.items():
            request = self.typed(datatype, [1, 4], **{f"{field}_contents": [0, 1, 1, 0]})
            got = self.stub.ModelInfer(request).outputs[0].contents.fp32_contents
            np.testing.assert_allclose(got, wanted.as_numpy("output-0"), err_msg=datatype)
            self.refused("INVALID_ARGUMENT", "x", self.stub.ModelInfer, self.typed(datatype, [1, 4]))

    def test_values_that_do_not_fit_are_refused_by_the_inputs_name(self):
        for datatype, field, values in [
            ("INT8", "int_contents", [0, 1, 128, 0]),
            ("INT16", "int_contents", [0, -32769, 1, 0]),
            ("UINT8", "uint_contents", [0, 1, 256, 0]),
            ("UINT16", "uint_contents", [0, 65536, 1, 0]),
            ("FP16", "fp32_contents", [0, 1, 1, 0]),
            ("BF16", "fp32_contents", [0, 1, 1, 0]),
            ("FP12", "fp32_contents", [0, 1, 1, 0]),
            ("BYTES", "bytes_contents", [b"a", b"b", b"c", b"d"]),
        ]:
            request = self.typed(datatype, [1, 4], **{field: values})
            with self.subTest(datatype):
                self.refused("INVALID_ARGUMENT", r"\bx\b", self.stub.ModelInfer, request)

    def test_shapes_and_parts_that_do_not_fit_are_refused(self):
        infer, values = self.stub.ModelInfer, {"fp32_contents": [0, 1, 1, 0]}
        for shape in ([2, 4], [-1, -1], [1, -2], [1 << 62, 1 << 62], []):
            self.refused("INVALID_ARGUMENT", r"\bx\b", infer, self.typed("FP32", shape, **values))
        self.refused("INVALID_ARGUMENT", "2 columns", infer, self.typed("FP32", [2, 2], **values))
        both = self.typed("FP32", [1, 4], **values)
        both.raw_input_contents.append(bytes(16))
        self.refused("INVALID_ARGUMENT", "x has contents beside raw_input_contents", infer, both)
        both.raw_input_contents.append(bytes(16))
        self.refused("INVALID_ARGUMENT", "raw_input_contents has 2 parts for 1 inputs", infer, both)
        nothing = service_pb2.ModelInferRequest(model_name="numbers")
        self.refused("INVALID_ARGUMENT", "input", infer, nothing)
        half = service_pb2.ModelInferRequest(model_name="numbers", raw_input_contents=[bytes(15)])
        half.inputs.add(name="x", datatype="FP32", shape=[1, 4])
        self.refused("INVALID_ARGUMENT", r"\bx\b", infer, half)

    def test_labels_that_are_texts_are_bytes(self):
        given = rows(self.texts, np.float64)
        wanted = self.texts["expected"]["predict"]["data"]
        raw = self.client.infer("texts", [self.tensor(given, "FP64")]).as_numpy("output-0")
        self.assertEqual([text.decode() for text in raw], wanted)
        request = self.typed("FP64", given.shape, "texts", fp64_contents=given.ravel())
        [output] = self.stub.ModelInfer(request).outputs
        self.assertEqual(output.datatype, "BYTES")
        self.assertEqual([text.decode() for text in output.contents.bytes_contents], wanted)

    def test_a_stream_goes_on_after_an_error(self):
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for name in ("numbers", "nothing", "numbers"):
            self.client.async_stream_infer(name, [self.tensor()])
        first, failed, last = (answers.get(timeout=30) for _ in range(3))
        self.client.stop_stream()
        for result, error in (first, last):
            self.assertIsNone(error)
            np.testing.assert_allclose(result.as_numpy("output-0"), self.expected, rtol=1e-6)
        self.assertIn("nothing does not exist", str(failed[1]))

    def test_asynchronous_and_compressed_requests_are_answered(self):
        async def ask():
            async with triton_aio.InferenceServerClient(self.server.grpc) as client:
                calls = [client.infer("numbers", [self.tensor()]) for _ in range(16)]
                return await asyncio.gather(*calls)

        packed = self.client.infer("numbers", [self.tensor()], compression_algorithm="gzip")
        for answer in [*asyncio.run(ask()), packed]:
            np.testing.assert_allclose(answer.as_numpy("output-0"), self.expected, rtol=1e-6)

    def test_messages_above_the_limit_are_refused(self):
        many = np.zeros((MESSAGE_LIMIT // 16, 4), np.float32)
        with self.assertRaisesRegex(triton.InferenceServerException, "too large"):
            self.client.infer("numbers", [self.tensor(many)])
        half = self.client.infer("numbers", [self.tensor(many[::2])])
        self.assertEqual(len(half.as_numpy("output-0")), len(many) // 2)


class Services(GrpcCase):
    def test_server_and_models_are_ready(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("numbers"))
        self.assertTrue(self.client.is_model_ready("versions", "2"))
        for call in (self.client.is_model_ready, self.client.get_model_metadata, self.client.unload_model):
            self.refused("NOT_FOUND", "Model with name nothing does not exist", call, "nothing")
        self.refused("NOT_FOUND", "does not exist", self.client.infer, "nothing", [self.tensor()])

    def test_metadata_says_what_goes_in_and_out(self):
        self.assertIn("model_repository", self.client.get_server_metadata().extensions)
        metadata = self.client.get_model_metadata("numbers")
        self.assertEqual((metadata.name, metadata.platform), ("numbers", "xgboost"))
        self.assertEqual([list(tensor.shape) for tensor in metadata.inputs], [[-1, 4]])
        self.assertEqual([tensor.name for tensor in metadata.outputs], ["output-0"])

    def test_health_follows_readiness(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            self.assertEqual(answer.status, health_pb2.HealthCheckResponse.SERVING)
        unknown = health_pb2.HealthCheckRequest(service="nothing")
        self.refused("NOT_FOUND", "not", stub.Check, unknown)

    def test_reflection_lists_the_services(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertLessEqual({SERVICE, "grpc.health.v1.Health"}, set(database.get_services()))
        self.assertEqual(database.FindFileContainingSymbol(SERVICE).package, "inference")

    def test_a_chat_is_answered_by_the_same_process(self):
        if not self.chats:
            self.skipTest("the language model is not here")
        body = {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "Hello"}]}
        request = urllib.request.Request(
            self.server.url + "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            self.assertTrue(json.load(answer)["choices"][0]["message"]["content"])
        self.refused("UNIMPLEMENTED", "OpenAI", self.client.infer, MODEL, [self.tensor()])


class RepositoryCalls(GrpcCase):
    def states(self):
        index = self.client.get_model_repository_index()
        return {(model.name, model.version): model.state for model in index.models}

    def test_models_are_unloaded_and_loaded(self):
        self.assertEqual(self.states()["numbers", ""], "READY")
        self.client.unload_model("numbers")
        self.assertEqual(self.states()["numbers", ""], "UNAVAILABLE")
        self.refused("NOT_FOUND", "does not exist", self.client.infer, "numbers", [self.tensor()])
        self.client.load_model("numbers")
        self.client.infer("numbers", [self.tensor()])

    def test_a_load_may_choose_the_versions(self):
        self.refused("NOT_FOUND", "not", self.client.infer, "versions", [self.tensor()], model_version="1")
        self.client.load_model("versions", config=json.dumps({"version_policy": {"all": {}}}))
        self.assertEqual(list(self.client.get_model_metadata("versions").versions), ["1", "2"])
        first = self.client.infer("versions", [self.tensor()], model_version="1")
        np.testing.assert_allclose(first.as_numpy("output-0"), self.expected, rtol=1e-6)
        newest = self.client.infer("versions", [self.tensor()])
        self.assertEqual(newest.get_response().model_version, "2")
        self.client.load_model("versions")
        self.assertEqual(list(self.client.get_model_metadata("versions").versions), ["2"])

    def test_failed_loads_say_why(self):
        load = self.client.load_model
        for name in ("nothing", "..", ".", "../numbers", str(self.root / "numbers"), "numbers/", ""):
            self.refused("UNAVAILABLE", "is not ready", load, name)
        (self.root / "broken").mkdir(exist_ok=True)
        (self.root / "broken/model.json").write_text("{}")
        self.refused("UNAVAILABLE", "LoadError error msg: model.json", load, "broken")
        self.assertEqual(self.states()["broken", ""], "UNAVAILABLE")
        self.refused("UNAVAILABLE", "config", load, "numbers", config="{]")
        self.refused("INVALID_ARGUMENT", "file:1/model.json", load, "numbers", config="{}", files={"file:1/model.json": b""})
        self.client.infer("numbers", [self.tensor()])

    def test_kserves_field_of_the_name_is_read_too(self):
        # Field 1 is the model in KServe's schema and the repository in Triton's.
        request = service_pb2.RepositoryModelLoadRequest(repository_name="texts")
        self.stub.RepositoryModelLoad(request)
        missing = service_pb2.RepositoryModelUnloadRequest(repository_name="nothing")
        self.refused("NOT_FOUND", "nothing", self.stub.RepositoryModelUnload, missing)


if __name__ == "__main__":
    unittest.main()
