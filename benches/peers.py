"""The same decode with `transformers`, for the ratios of docs/performance.md.

Run: python benches/peers.py models/SmolLM2-135M-Instruct.Q4_1.gguf
Needs torch, transformers, accelerate and gguf. Prints tokens per second of one stream after a prompt
of 64 tokens: the demo model dequantised to float32 (transformers has no packed form of it), and a
random bf16 model of the shape of Qwen3-0.6B.
"""

import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, Qwen3Config

PROMPT, TOKENS, REPETITIONS = 64, 32, 3


def decode(model):
    figures = []
    for _ in range(REPETITIONS + 1):
        known = (torch.arange(PROMPT)[None] * 7919) % model.config.vocab_size
        with torch.inference_mode():
            output = model(known, use_cache=True)
            start = time.perf_counter()
            for _ in range(TOKENS):
                known = output.logits[:, -1:].argmax(-1)
                output = model(known, past_key_values=output.past_key_values, use_cache=True)
        figures.append(TOKENS / (time.perf_counter() - start))
    return sorted(figures[1:])


def main(path):
    gguf = Path(path)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    print("smollm2 float32, tokens/s (min, median, max):", decode(model))
    config = Qwen3Config(
        vocab_size=151936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, max_position_embeddings=4096, tie_word_embeddings=True)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    print("qwen3-0.6b random bf16, tokens/s (min, median, max):", decode(model))


if __name__ == "__main__":
    main(sys.argv[1])
