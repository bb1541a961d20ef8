"""Triton's HTTP clients against the Open Inference Protocol, with models that the libraries wrote, beside a chat."""

import asyncio
import unittest

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from classic import Chats, MixedCase, expected, rows


class KserveCase(MixedCase):
    """Tests that share a server of a classic model and a language model."""

    models = {"flowers": "xgboost/x176_binary_logistic"}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.address = cls.server.url.removeprefix("http://")
        cls.client = triton.InferenceServerClient(cls.address)
        cls.addClassCleanup(cls.client.close)
        cls.rows = rows(cls.cases["flowers"], np.float32)
        cls.expected = expected(cls.cases["flowers"], "default")

    @staticmethod
    def tensor(values, binary):
        given = triton.InferInput("x", list(values.shape), "FP32")
        given.set_data_from_numpy(values, binary_data=binary)
        return given

    def ask(self, binary_in, binary_out, **options):
        given = self.tensor(self.rows, binary_in)
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

    def test_coroutines_are_answered_beside_a_chat(self):
        whole = np.nan_to_num(self.rows)
        wanted = self.client.infer("flowers", [self.tensor(whole, True)]).as_numpy("output-0")

        async def ask():
            async with triton_aio.InferenceServerClient(self.address) as client:
                self.assertTrue(await client.is_server_live())
                self.assertTrue(await client.is_model_ready("flowers"))
                ways = [(given, answer) for given in (True, False) for answer in (True, False)] * 4
                calls = [
                    client.infer(
                        "flowers",
                        [self.tensor(whole, given)],
                        outputs=[triton.InferRequestedOutput("output-0", binary_data=answer)],
                    )
                    for given, answer in ways
                ]
                return await asyncio.gather(*calls)

        with Chats(self.server):
            answers = asyncio.run(ask())
        for answer in answers:
            np.testing.assert_array_equal(answer.as_numpy("output-0"), wanted)

    def test_threads_are_answered_beside_a_chat(self):
        with Chats(self.server):
            calls = [self.client.async_infer("flowers", [self.tensor(self.rows, True)]) for _ in range(16)]
            for call in calls:
                np.testing.assert_allclose(call.get_result().as_numpy("output-0"), self.expected, rtol=1e-6)

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
