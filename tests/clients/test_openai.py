"""The official client of the OpenAI API against the real binary and a real model."""

import asyncio
import math

import openai

from server_case import MODEL, ServerCase

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell a story about a fox."}]


def delta_text(chunks, index=0):
    """The text of one choice of a stream."""
    choices = [choice for chunk in chunks for choice in chunk.choices]
    return "".join(choice.delta.content or "" for choice in choices if choice.index == index)


class OpenAiCase(ServerCase):
    """A server and a client of it."""

    def setUp(self):
        self.client = openai.OpenAI(base_url=self.base_url, api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def chat(self, messages, **fields):
        return self.client.chat.completions.create(model=MODEL, messages=messages, **fields)

    def complete(self, prompt, **fields):
        return self.client.completions.create(model=MODEL, prompt=prompt, **fields)


class Chat(OpenAiCase):
    def test_answers(self):
        answer = self.chat(FRANCE, temperature=0, max_tokens=32)
        self.assertEqual(answer.object, "chat.completion")
        self.assertEqual(answer.model, MODEL)
        self.assertTrue(answer.id.startswith("chatcmpl-"))
        [choice] = answer.choices
        self.assertEqual(choice.message.role, "assistant")
        self.assertIn("Paris", choice.message.content)
        self.assertEqual(choice.finish_reason, "stop")

    def test_usage_counts_tokens(self):
        answer = self.chat(STORY, max_tokens=7, extra_body={"ignore_eos": True})
        usage = answer.usage
        self.assertEqual(usage.completion_tokens, 7)
        self.assertGreater(usage.prompt_tokens, 5)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + 7)
        self.assertEqual(answer.choices[0].finish_reason, "length")

    def test_system_messages_matter(self):
        def name(system):
            messages = [
                {"role": "system", "content": system},
                {"role": "user", "content": [{"type": "text", "text": "What is your name?"}]},
            ]
            answer = self.chat(messages, temperature=0, max_tokens=12)
            return answer.choices[0].message.content

        self.assertIn("Milo", name("Your name is Milo."))
        self.assertNotIn("Milo", name("You are a helpful assistant."))

    def test_earlier_turns_are_part_of_the_prompt(self):
        turns = [
            {"role": "user", "content": "Hello."},
            {"role": "assistant", "content": "Hello! How can I help?"},
        ]
        alone = self.chat(FRANCE, temperature=0, max_tokens=4)
        after = self.chat(turns + FRANCE, temperature=0, max_tokens=4)
        self.assertGreater(after.usage.prompt_tokens, alone.usage.prompt_tokens + 8)

    def test_streams_what_it_would_answer_at_once(self):
        fields = {"temperature": 0, "max_tokens": 48}
        whole = self.chat(STORY, **fields)
        options = {"include_usage": True}
        chunks = list(self.chat(STORY, stream=True, stream_options=options, **fields))
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual(delta_text(chunks), whole.choices[0].message.content)
        *parts, last = chunks
        finishes = [chunk.choices[0].finish_reason for chunk in parts]
        self.assertEqual(finishes[-1], whole.choices[0].finish_reason)
        self.assertEqual(set(finishes[:-1]), {None})
        self.assertEqual({chunk.id for chunk in chunks}, {chunks[0].id})
        self.assertEqual(last.choices, [])
        self.assertEqual(last.usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(last.usage.prompt_tokens, whole.usage.prompt_tokens)
        self.assertTrue(all(chunk.usage is None for chunk in parts))

    def test_streams_without_usage(self):
        chunks = list(self.chat(STORY, stream=True, temperature=0, max_tokens=4))
        self.assertTrue(all(len(chunk.choices) == 1 for chunk in chunks))
        self.assertGreaterEqual(len(chunks), 3, "tokens are not sent as they come")

    def test_logprobs(self):
        fields = {"temperature": 0, "max_tokens": 6, "logprobs": True, "top_logprobs": 3}
        answer = self.chat(STORY, **fields)
        content = answer.choices[0].logprobs.content
        self.assertEqual(len(content), answer.usage.completion_tokens)
        self.assertEqual(
            b"".join(bytes(entry.bytes) for entry in content).decode(),
            answer.choices[0].message.content,
        )
        for entry in content:
            top = [candidate.logprob for candidate in entry.top_logprobs]
            self.assertEqual(len(top), 3)
            self.assertEqual(top, sorted(top, reverse=True))
            self.assertEqual(entry.token, entry.top_logprobs[0].token, "greedy picks the best")
            self.assertAlmostEqual(entry.logprob, top[0], places=5)
            self.assertLessEqual(sum(map(math.exp, top)), 1.0001)

    def test_logprobs_in_a_stream(self):
        fields = {"temperature": 0, "max_tokens": 6, "logprobs": True, "top_logprobs": 2}
        whole = self.chat(STORY, **fields).choices[0].logprobs.content
        streamed = []
        for chunk in self.chat(STORY, stream=True, **fields):
            if chunk.choices[0].logprobs:
                streamed += chunk.choices[0].logprobs.content
        self.assertEqual([entry.token for entry in streamed], [entry.token for entry in whole])
        self.assertEqual([len(entry.top_logprobs) for entry in streamed], [2] * len(whole))

    def test_choices_of_a_seed(self):
        fields = {"n": 3, "seed": 7, "temperature": 1.5, "max_tokens": 12}
        first, second = self.chat(STORY, **fields), self.chat(STORY, **fields)
        self.assertEqual([choice.index for choice in first.choices], [0, 1, 2])
        texts = [choice.message.content for choice in first.choices]
        self.assertGreater(len(set(texts)), 1, "the choices are all the same")
        self.assertEqual(texts, [choice.message.content for choice in second.choices])
        chunks = list(self.chat(STORY, stream=True, **fields))
        self.assertEqual(texts, [delta_text(chunks, index) for index in range(3)])

    def test_seeds_decide(self):
        def text(seed):
            answer = self.chat(STORY, seed=seed, temperature=1.5, max_tokens=16)
            return answer.choices[0].message.content

        self.assertEqual(text(1), text(1))
        self.assertEqual(len({text(seed) for seed in range(4)}), 4)

    def test_stop_strings(self):
        whole = self.chat(STORY, temperature=0, max_tokens=32).choices[0].message.content
        words = whole.split(" ")
        stop = " " + " ".join(words[4:6])
        expected = whole[: whole.index(stop)]
        answer = self.chat(STORY, temperature=0, max_tokens=32, stop=["never said", stop])
        self.assertEqual(answer.choices[0].message.content, expected)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        chunks = list(self.chat(STORY, stream=True, temperature=0, max_tokens=32, stop=stop))
        self.assertEqual(delta_text(chunks), expected)
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_max_completion_tokens(self):
        answer = self.chat(STORY, max_completion_tokens=3, extra_body={"ignore_eos": True})
        self.assertEqual(answer.usage.completion_tokens, 3)

    def test_logit_bias_forbids(self):
        answer = self.chat(STORY, temperature=0, max_tokens=1, logprobs=True)
        token = answer.choices[0].message.content
        tokenize = self.client.post(
            self.server.url + "/tokenize",
            cast_to=object,
            body={"model": MODEL, "prompt": token, "add_special_tokens": False},
        )
        [token_id] = tokenize["tokens"]
        biased = self.chat(STORY, temperature=0, max_tokens=1, logit_bias={str(token_id): -100})
        self.assertNotEqual(biased.choices[0].message.content, token)


class Completions(OpenAiCase):
    prompt = "The capital of France is"

    def test_answers(self):
        answer = self.complete(self.prompt, temperature=0, max_tokens=8)
        self.assertEqual(answer.object, "text_completion")
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(answer.usage.completion_tokens, 8)

    def test_streams_what_it_would_answer_at_once(self):
        fields = {"temperature": 0, "max_tokens": 16}
        whole = self.complete(self.prompt, **fields).choices[0]
        chunks = list(self.complete(self.prompt, stream=True, **fields))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.text)
        self.assertEqual(chunks[-1].choices[0].finish_reason, whole.finish_reason)

    def test_token_ids_are_a_prompt_too(self):
        tokenize = self.client.post(
            self.server.url + "/tokenize",
            cast_to=object,
            body={"model": MODEL, "prompt": self.prompt},
        )
        fields = {"temperature": 0, "max_tokens": 8}
        by_text = self.complete(self.prompt, **fields)
        by_tokens = self.complete(tokenize["tokens"], **fields)
        self.assertEqual(by_tokens.choices[0].text, by_text.choices[0].text)
        self.assertEqual(by_tokens.usage.prompt_tokens, len(tokenize["tokens"]))
        by_list = self.complete([tokenize["tokens"], tokenize["tokens"]], **fields)
        self.assertEqual([choice.text for choice in by_list.choices], [by_text.choices[0].text] * 2)

    def test_lists_of_prompts(self):
        prompts = [self.prompt, "One, two, three,", "The opposite of hot is"]
        fields = {"temperature": 0, "max_tokens": 6}
        alone = [self.complete(prompt, **fields) for prompt in prompts]
        together = self.complete(prompts, **fields)
        self.assertEqual([choice.index for choice in together.choices], [0, 1, 2])
        texts = [choice.text for choice in together.choices]
        self.assertEqual(texts, [answer.choices[0].text for answer in alone])
        prompt_tokens = sum(answer.usage.prompt_tokens for answer in alone)
        self.assertEqual(together.usage.prompt_tokens, prompt_tokens)
        self.assertEqual(together.usage.completion_tokens, 18)

    def test_choices_of_each_prompt(self):
        prompts = [self.prompt, "One, two, three,"]
        answer = self.complete(prompts, n=2, seed=3, temperature=1.2, max_tokens=4)
        self.assertEqual([choice.index for choice in answer.choices], [0, 1, 2, 3])

    def test_echo(self):
        fields = {"temperature": 0, "max_tokens": 4}
        plain = self.complete(self.prompt, **fields).choices[0].text
        echoed = self.complete(self.prompt, echo=True, **fields).choices[0].text
        self.assertEqual(echoed, self.prompt + plain)
        only = self.complete(self.prompt, echo=True, temperature=0, max_tokens=0)
        self.assertEqual(only.choices[0].text, self.prompt)
        self.assertEqual(only.usage.completion_tokens, 0)

    def test_logprobs(self):
        answer = self.complete(self.prompt, temperature=0, max_tokens=5, logprobs=2)
        logprobs = answer.choices[0].logprobs
        self.assertEqual("".join(logprobs.tokens), answer.choices[0].text)
        self.assertEqual(len(logprobs.token_logprobs), 5)
        offsets = [sum(map(len, logprobs.tokens[:index])) for index in range(5)]
        self.assertEqual(logprobs.text_offset, offsets)
        for token, value, top in zip(
            logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs
        ):
            self.assertLessEqual(value, 0)
            self.assertEqual(max(top, key=top.get), token)

    def test_logprobs_of_the_echo_score_the_prompt(self):
        def score(text):
            answer = self.complete(text, echo=True, logprobs=1, max_tokens=0, temperature=0)
            values = answer.choices[0].logprobs.token_logprobs
            self.assertIsNone(values[0])
            self.assertEqual("".join(answer.choices[0].logprobs.tokens), text)
            return sum(values[1:])

        likely, unlikely = score(self.prompt + " Paris"), score(self.prompt + " banana")
        self.assertGreater(likely, unlikely)

    def test_seeds_decide(self):
        def text(seed):
            return self.complete(self.prompt, seed=seed, max_tokens=16).choices[0].text

        self.assertEqual(text(11), text(11))
        self.assertGreater(len({text(seed) for seed in range(4)}), 1)


class ModelsAndErrors(OpenAiCase):
    def test_models(self):
        [model] = self.client.models.list().data
        self.assertEqual((model.id, model.object), (MODEL, "model"))
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)

    def test_unknown_models_are_not_found(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.chat.completions.create(model="gpt-9", messages=FRANCE)
        self.assertEqual(caught.exception.param, "model")
        self.assertIn("gpt-9", caught.exception.message)
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("gpt-9")

    def test_values_out_of_range_are_bad_requests(self):
        for name, fields in [
            ("temperature", {"temperature": 3}),
            ("top_p", {"top_p": -1}),
            ("max_tokens", {"max_tokens": 10**9}),
            ("n", {"n": 0}),
            ("logit_bias.x", {"logit_bias": {"x": 1}}),
            ("response_format", {"response_format": {"type": "json_object"}}),
        ]:
            with self.subTest(name), self.assertRaises(openai.BadRequestError) as caught:
                self.chat(FRANCE, **fields)
            self.assertEqual(caught.exception.param, name)

    def test_prompts_that_do_not_fit(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.complete("word " * 10000, max_tokens=1)
        self.assertIn("maximum context length", caught.exception.message)

    def test_errors_of_streams_come_before_the_stream(self):
        with self.assertRaises(openai.BadRequestError):
            self.chat(FRANCE, stream=True, temperature=3)


class Keys(OpenAiCase):
    options = ("--api-key", "secret")

    def test_keys_open_the_door(self):
        with self.assertRaises(openai.AuthenticationError):
            self.chat(FRANCE, max_tokens=1)
        with self.client.with_options(api_key="secret") as client:
            self.assertEqual([model.id for model in client.models.list().data], [MODEL])


class Async(ServerCase):
    streams = 16

    async def stream(self, client, index):
        messages = [{"role": "user", "content": f"Tell a story about {index} birds."}]
        chunks = await client.chat.completions.create(
            model=MODEL, messages=messages, temperature=0, max_tokens=24, stream=True
        )
        return delta_text([chunk async for chunk in chunks])

    async def run_streams(self):
        async with openai.AsyncOpenAI(base_url=self.base_url, api_key="none") as client:
            tasks = (self.stream(client, index) for index in range(self.streams))
            together = await asyncio.gather(*tasks)
            alone = [await self.stream(client, index) for index in range(0, self.streams, 5)]
        return together, alone

    def test_streams_side_by_side(self):
        together, alone = asyncio.run(self.run_streams())
        self.assertEqual(len(together), self.streams)
        self.assertTrue(all(together))
        self.assertEqual(together[::5], alone)
