"""One run of llama.cpp on a GGUF file, by llama-cpp-python's low-level API: prints one JSON object.

    python llama_run.py MODEL.gguf --prompt-tokens 64 --tokens 32 --warmup 4 --threads 2 [--repack] [--seed 0]

First a request that is not measured (prompt and `--warmup` tokens), then a measured one of other random tokens; as
llama.cpp's own bench does it, what comes next is a random id and not the model's choice.
"""

import argparse
import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np

BATCH_TOKENS = 512  # llama.cpp's own default for a physical batch
LOG_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which llama-cpp-python does not name


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repack", action="store_true", help="copy the weights into llama.cpp's faster layout")
    args = parser.parse_args()
    callback = llama_cpp.llama_log_callback(print_errors)  # held, as C does not hold it
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    context = load(args)
    random = np.random.default_rng(args.seed)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(llama_cpp.llama_get_model(context)))

    def ids(count: int) -> "np.typing.NDArray[np.int32]":
        return random.integers(0, vocabulary, count, np.int32)

    if args.warmup:
        run(context, ids(args.prompt_tokens), ids(args.warmup))
    prefill, tokens = run(context, ids(args.prompt_tokens), ids(args.tokens))
    quartiles = [float(q) for q in np.percentile(tokens, (25, 50, 75))]
    print(
        json.dumps(
            {
                "prefill_tokens_per_second": args.prompt_tokens / prefill,
                "decode_tokens_per_second": len(tokens) / sum(tokens),
                "token_seconds_quartiles": quartiles,
                "version": llama_cpp.__version__,
                "repack": args.repack,
            }
        )
    )
    return 0


def print_errors(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Of llama.cpp's log only what went wrong, to stderr."""
    if level == LOG_ERROR:
        sys.stderr.write(text.decode(errors="replace"))


def load(args: argparse.Namespace) -> "llama_cpp.llama_context_p":
    """The model, mapped, and a context for one sequence."""
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = 0
    params.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
    params.use_extra_bufts = args.repack
    model = llama_cpp.llama_model_load_from_file(args.model.encode(), params)
    if model is None:
        raise SystemExit(f"llama.cpp cannot load {args.model}")
    settings = llama_cpp.llama_context_default_params()
    longest = args.prompt_tokens + max(args.tokens, args.warmup)
    settings.n_ctx = settings.n_batch = longest
    settings.n_ubatch = BATCH_TOKENS
    settings.n_threads = settings.n_threads_batch = args.threads
    context = llama_cpp.llama_init_from_model(model, settings)
    if context is None:
        raise SystemExit("llama.cpp cannot make a context")
    return context


def run(
    context: "llama_cpp.llama_context_p", prompt: "np.typing.NDArray[np.int32]", tokens: "np.typing.NDArray[np.int32]"
) -> tuple[float, list[float]]:
    """Seconds of the prompt and of each token after it, from an empty context."""
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    prefill = decode(context, prompt)
    return prefill, [decode(context, tokens[i : i + 1]) for i in range(len(tokens))]


def decode(context: "llama_cpp.llama_context_p", ids: "np.typing.NDArray[np.int32]") -> float:
    """Seconds of one batch; the logits are of its last token."""
    data = (llama_cpp.llama_token * len(ids))(*ids.tolist())
    began = time.perf_counter()
    batch = llama_cpp.llama_batch_get_one(data, ctypes.c_int32(len(ids)))
    if status := llama_cpp.llama_decode(context, batch):
        raise SystemExit(f"llama_decode failed with {status}")
    llama_cpp.llama_synchronize(context)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
