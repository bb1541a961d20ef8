"""Triton's HTTP client against the Open Inference Protocol, with models that the libraries wrote."""

import json
import unittest

import numpy as np
import tritonclient.http as triton
from server_case import ROOT, Server, ServerCase

FIXTURES = ROOT / "predictive/tests/fixtures/xgboost"
CASE = json.loads((FIXTURES / "x176_binary_logistic.case.json").read_text())


class KserveCase(ServerCase):
    """Tests that share a server of one classic model."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(model=FIXTURES / CASE["model"], name="flowers")
        cls.client = triton.InferenceServerClient(cls.server.url.removeprefix("http://"))
        given = CASE["input"]
        cls.rows = np.array([float(value) for value in given["data"]], dtype=np.float32).reshape(given["shape"])
        cls.expected = [float(value) for value in CASE["expected"]["default"]["data"]]

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        super().tearDownClass()

    def ask(self, binary_in, binary_out, **options):
        given = triton.InferInput("x", list(self.rows.shape), "FP32")
        given.set_data_from_numpy(self.rows, binary_data=binary_in)
        wanted = [triton.InferRequestedOutput("output-0", binary_data=binary_out)]
        return self.client.infer("flowers", [given], outputs=wanted, **options)

    def test_the_server_and_the_model_are_ready(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())
        self.assertTrue(self.client.is_model_ready("flowers"))
        metadata = self.client.get_model_metadata("flowers")
        self.assertEqual(metadata["name"], "flowers")
        self.assertEqual(len(metadata["inputs"]), 1)
        self.assertIn("binary_tensor_data", self.client.get_server_metadata()["extensions"])

    def test_numbers_are_the_librarys_in_json_and_raw(self):
        raw = self.ask(True, True).as_numpy("output-0")
        np.testing.assert_allclose(raw.ravel(), self.expected, rtol=1e-6)
        without_nan = not np.isnan(self.rows).any()
        for binary_in, binary_out in [(True, False)] + [(False, True), (False, False)] * without_nan:
            answer = self.ask(binary_in, binary_out).as_numpy("output-0")
            np.testing.assert_array_equal(answer, raw, f"{binary_in} {binary_out}")

    def test_bodies_are_compressed_when_asked(self):
        plain = self.ask(True, True).as_numpy("output-0")
        for way in ("gzip", "deflate"):
            options = {"request_compression_algorithm": way, "response_compression_algorithm": way}
            np.testing.assert_array_equal(self.ask(True, True, **options).as_numpy("output-0"), plain)

    def test_asynchronous_requests_are_answered(self):
        given = triton.InferInput("x", list(self.rows.shape), "FP32")
        given.set_data_from_numpy(self.rows)
        calls = [self.client.async_infer("flowers", [given]) for _ in range(8)]
        for call in calls:
            answer = call.get_result().as_numpy("output-0")
            np.testing.assert_allclose(answer.ravel(), self.expected, rtol=1e-6)

    def test_errors_say_what_is_wrong(self):
        given = triton.InferInput("x", [1, 1], "FP32")
        given.set_data_from_numpy(np.zeros((1, 1), np.float32))
        with self.assertRaisesRegex(triton.InferenceServerException, "does not exist"):
            self.client.infer("nothing", [given])
        with self.assertRaisesRegex(triton.InferenceServerException, "Unexpected inference output 'y'"):
            self.client.infer("flowers", [given], outputs=[triton.InferRequestedOutput("y")])
        with self.assertRaises(triton.InferenceServerException):
            self.client.infer("flowers", [given])

    def test_requests_are_counted(self):
        before = self.client.get_inference_statistics("flowers")["model_stats"][0]
        self.ask(True, True)
        after = self.client.get_inference_statistics("flowers")["model_stats"][0]
        self.assertEqual(after["inference_count"] - before["inference_count"], len(self.rows))


if __name__ == "__main__":
    unittest.main()
