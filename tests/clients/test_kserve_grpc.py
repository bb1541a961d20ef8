"""Triton's gRPC client, the health service and reflection against a repository of models that the libraries wrote."""

import asyncio
import json
import queue
import unittest

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from classic import Chats, MixedCase, expected, rows
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from server_case import MODEL
from tritonclient.grpc import service_pb2, service_pb2_grpc

SERVICE = "inference.GRPCInferenceService"
MESSAGE_LIMIT = 1 << 20


class GrpcCase(MixedCase):
    """Tests that share a server of a repository beside a language model."""

    options = ("--grpc-max-receive-message-length", str(MESSAGE_LIMIT))
    models = {
        "numbers": "xgboost/x176_binary_logistic",
        "texts": "sklearn_models/LogisticRegression_three_191",
        "three": "xgboost/x176_dart_softprob",
        "versions/1": "xgboost/x176_binary_logistic",
        "versions/2": "xgboost/x176_dart_logistic",
    }

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.numbers, cls.texts = cls.cases["numbers"], cls.cases["texts"]
        cls.rows = rows(cls.numbers, np.float32)
        cls.expected = expected(cls.numbers, "default")
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

    def test_every_kind_of_call_is_answered_beside_a_chat(self):
        async def ask():
            async with triton_aio.InferenceServerClient(self.server.grpc) as client:
                self.assertTrue(await client.is_server_ready())
                self.assertTrue(await client.is_model_ready("numbers"))
                calls = [client.infer("numbers", [self.tensor()]) for _ in range(16)]
                return await asyncio.gather(*calls)

        done = queue.Queue()
        with Chats(self.server):
            answers = asyncio.run(ask())
            answers.append(self.client.infer("numbers", [self.tensor()], compression_algorithm="gzip"))
            for _ in range(8):
                self.client.async_infer("numbers", [self.tensor()], lambda result, error: done.put((result, error)))
            for _ in range(8):
                result, error = done.get(timeout=60)
                self.assertIsNone(error)
                answers.append(result)
        self.assertEqual(len(answers), 25)
        for answer in answers:
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

    def test_configuration_and_metadata_agree_with_the_answer(self):
        for name, values, datatype in [
            ("numbers", self.rows, "FP32"),
            ("three", rows(self.cases["three"], np.float32), "FP32"),
            ("texts", rows(self.texts, np.float64), "FP64"),
        ]:
            with self.subTest(name):
                [output] = self.client.get_model_metadata(name).outputs
                config = self.client.get_model_config(name).config
                self.assertEqual((config.name, config.backend), (name, self.client.get_model_metadata(name).platform))
                self.assertEqual(list(config.output[0].dims), list(output.shape))
                answer = self.client.infer(name, [self.tensor(values, datatype)]).get_response().outputs[0]
                self.assertEqual((answer.name, answer.datatype), (output.name, output.datatype))
                self.assertEqual(list(answer.shape), [len(values), *output.shape[1:]])
                self.assertEqual(output.shape[0], -1)
        self.refused("NOT_FOUND", "nothing", self.client.get_model_config, "nothing")

    def test_requests_are_counted(self):
        def counters():
            [stats] = self.client.get_inference_statistics("numbers").model_stats
            return stats

        before = counters()
        self.client.infer("numbers", [self.tensor()], priority=1, timeout=60_000_000)
        after = counters()
        self.assertEqual(after.inference_count - before.inference_count, len(self.rows))
        self.assertEqual(after.inference_stats.success.count - before.inference_stats.success.count, 1)
        self.assertGreater(after.last_inference, 0)
        [memory] = after.memory_usage
        self.assertEqual((memory.type, memory.byte_size), ("CPU", self.numbers["path"].stat().st_size))
        every = {stats.name for stats in self.client.get_inference_statistics().model_stats}
        self.assertLessEqual({"numbers", "texts", "versions"}, every)
        self.refused("NOT_FOUND", "nothing", self.client.get_inference_statistics, "nothing")

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

    def test_a_language_model_points_to_its_routes(self):
        self.refused("UNIMPLEMENTED", "OpenAI", self.client.infer, MODEL, [self.tensor()])


class Strict(GrpcCase):
    options = ("--strict-kserve",)

    def test_what_kserves_servers_lack_is_lacking(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        check = health_pb2.HealthCheckRequest(service="")
        for call, *arguments in [
            (health.Check, check),
            (self.client.get_model_repository_index,),
            (self.client.get_inference_statistics, "numbers"),
            (self.client.get_model_config, "numbers"),
        ]:
            self.refused("UNIMPLEMENTED", "^", call, *arguments)
        with self.assertRaises(grpc.RpcError):
            ProtoReflectionDescriptorDatabase(self.channel).get_services()

    def test_answers_are_those_of_kserves_servers(self):
        metadata = self.client.get_model_metadata("numbers")
        self.assertEqual((metadata.name, metadata.platform, list(metadata.outputs)), ("numbers", "", []))
        self.assertEqual(list(self.client.get_server_metadata().extensions), ["model_repository_extension"])
        labels = self.tensor(rows(self.texts, np.float64), "FP64")
        self.refused("INVALID_ARGUMENT", "decoding str is not supported", self.client.infer, "texts", [labels])
        self.refused("UNKNOWN", "is not ready", self.client.load_model, "nothing")
        answer = self.client.infer("numbers", [self.tensor()]).as_numpy("output-0")
        np.testing.assert_allclose(answer, self.expected, rtol=1e-6)
        narrow = self.client.infer("numbers", [self.tensor(self.rows[:, :2])])
        self.assertEqual(len(narrow.as_numpy("output-0")), len(self.rows))


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
