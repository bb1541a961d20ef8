//! Flags of the KServe model servers and of `vllm serve` that have no effect here, or are refused.

use super::flags::Flag;
use super::flags::Value::{Decimal, Json, List, Switch, Text, Whole};

const PYTHON: &str = "no Python runs in this server";
const GRPC: &str = "gRPC shares the threads of HTTP";
const ONE_PROCESS: &str = "one process serves; its threads are set with --threads";
const ONE_DEVICE: &str = "a model runs in this process on the CPU and is not split";
const CPU_ONLY: &str = "models run on the CPU";
const NO_ADAPTERS: &str = "adapters are not supported: the base model alone would answer";
const NO_PREDICTOR: &str = "this server runs the model itself and calls no other predictor";
const SAFE_CIPHERS: &str =
    "TLS 1.2 and 1.3 are spoken with the suites that rustls holds safe, and no others";
const ENCODERS: &str = "it concerns encoder models, which are not served";
const TEXT_ONLY: &str = "only text is served";
const OWN_LOGS: &str = "the log is set with --log-level and --log-format";
const NO_PROMPTS: &str = "prompts are never logged";
const STEPS_ARE_BOUND: &str = "nothing is compiled or captured at run time";

pub(super) static MODEL: &[Flag] = &[
    Flag::refused("quantization", Text, &["none", "null", "auto", "gguf"], ["Quantisation of the weights", "weights are served in the type they are stored in; give a checkpoint that is stored as wanted"]).or(&["q"]),
    Flag::refused("load-format", Text, &["auto", "safetensors", "hf", "gguf"], ["Format of the weights", "safetensors and GGUF are read, and recognised by themselves"]),
    Flag::refused("hf-overrides", Json, &["{}", "null"], ["Changes to config.json", "the configuration is used as the checkpoint has it"]),
    Flag::refused("tokenizer-revision", Text, &["main"], ["Revision of another tokenizer", "give the directory of its files to --tokenizer"]),
    Flag::refused("tokenizer-mode", Text, &["auto", "hf", "fast"], ["Implementation of the tokenizer", "there is one: the checkpoint's tokenizer.json, run natively"]),
    Flag::refused("skip-tokenizer-init", Switch, &[], ["Serve token ids only", "requests need the tokenizer"]),
    Flag::refused("runner", Text, &["auto", "generate"], ["What the model does", "models that generate text are served"]),
    Flag::refused("convert", Text, &["auto", "none"], ["Turn the model into another kind", "models are served as they are"]),
    Flag::refused("task", Text, &["auto", "generate", "text-generation", "text_generation", "text2text_generation"], ["What the model does", "models that generate text are served"]),
    Flag::refused("pooler-config", Json, &["{}", "null"], ["Pooling of encoder models", ENCODERS]).or(&["override-pooler-config"]),
    Flag::no_effect("trust-remote-code", Switch, "Run code from the checkpoint", PYTHON),
    Flag::no_effect("model-impl", Text, "Implementation of the model", "there is one per architecture"),
    Flag::no_effect("code-revision", Text, "Revision of code in the checkpoint", PYTHON),
    Flag::no_effect("limit-mm-per-prompt", Json, "Images and sounds per prompt", TEXT_ONLY),
    Flag::no_effect("allowed-local-media-path", Text, "Directory of images and sounds", TEXT_ONLY),
];

pub(super) static ENGINE: &[Flag] = &[
    Flag::no_effect(
        "enable-chunked-prefill",
        Switch,
        "Long prompts run in chunks",
        "prompts above --max-num-batched-tokens always do",
    ),
    Flag::no_effect("gpu-memory-utilization", Decimal, "Share of the GPU's memory", CPU_ONLY),
    Flag::refused(
        "cpu-offload-gb",
        Decimal,
        &["0", "0.0"],
        ["Weights kept out of the GPU's memory", CPU_ONLY],
    ),
    Flag::no_effect(
        "swap-space",
        Decimal,
        "Memory for swapped sequences",
        "preempted sequences are recomputed",
    ),
    Flag::no_effect(
        "seed",
        Whole,
        "Seed of the engine",
        "a request's own seed makes it reproducible; without one it is random",
    ),
    Flag::no_effect(
        "prefix-caching-hash-algo",
        Text,
        "Hash of cached blocks",
        "there is one, keyed at random per process",
    ),
    Flag::no_effect(
        "stream-interval",
        Whole,
        "Tokens per streamed event",
        "every token is streamed at once",
    ),
    Flag::refused(
        "logprobs-mode",
        Text,
        &["raw_logprobs"],
        [
            "What log-probabilities are computed from",
            "they are computed from the raw logits (raw_logprobs)",
        ],
    ),
    Flag::no_effect("enforce-eager", Switch, "No graph capture", STEPS_ARE_BOUND),
    Flag::no_effect("compilation-config", Json, "Compilation", STEPS_ARE_BOUND).or(&["o"]),
    Flag::no_effect("cuda-graph-sizes", List, "Captured batch sizes", STEPS_ARE_BOUND),
    Flag::no_effect("max-seq-len-to-capture", Whole, "Captured length", STEPS_ARE_BOUND),
    Flag::no_effect("device", Text, "Device", CPU_ONLY),
    Flag::no_effect(
        "async-scheduling",
        Switch,
        "Plan a step while another runs",
        "the order of steps is fixed",
    ),
    Flag::refused(
        "speculative-config",
        Json,
        &["null", "{}"],
        ["Speculative decoding", "it is not supported"],
    ),
    Flag::refused(
        "kv-transfer-config",
        Json,
        &["null", "{}"],
        [
            "Keys and values from other servers",
            "it is not supported, and a server with a role in it would answer wrongly",
        ],
    ),
    Flag::refused(
        "kv-events-config",
        Json,
        &["null", "{}"],
        ["Events about cached blocks", "they are not published"],
    ),
    Flag::no_effect(
        "guided-decoding-backend",
        Text,
        "Implementation of constrained output",
        "a request for constrained output is refused by name",
    )
    .or(&["structured-outputs-config"]),
    Flag::no_effect("otlp-traces-endpoint", Text, "Where traces go", "traces are not exported"),
    Flag::no_effect(
        "collect-detailed-traces",
        Text,
        "Parts that are traced",
        "traces are not exported",
    ),
    Flag::no_effect(
        "disable-log-stats",
        Switch,
        "No statistics in the log",
        "they are in /metrics, not in the log",
    ),
];

pub(super) static PARALLEL: &[Flag] = &[
    Flag::refused("tensor-parallel-size", Whole, &["1"], ["Devices per layer", ONE_DEVICE])
        .or(&["tp"]),
    Flag::refused("pipeline-parallel-size", Whole, &["1"], ["Devices in a row", ONE_DEVICE])
        .or(&["pp"]),
    Flag::refused("data-parallel-size", Whole, &["1"], ["Copies of the model", ONE_DEVICE])
        .or(&["dp"]),
    Flag::refused(
        "data-parallel-size-local",
        Whole,
        &["1"],
        ["Copies of the model on this node", ONE_DEVICE],
    ),
    Flag::refused(
        "data-parallel-start-rank",
        Whole,
        &["0"],
        ["First copy on this node", ONE_DEVICE],
    ),
    Flag::refused("data-parallel-rank", Whole, &["0"], ["This copy", ONE_DEVICE]),
    Flag::refused("data-parallel-hybrid-lb", Switch, &[], ["Balance between copies", ONE_DEVICE]),
    Flag::no_effect("data-parallel-address", Text, "Address of the first copy", ONE_DEVICE),
    Flag::no_effect("data-parallel-rpc-port", Whole, "Port between copies", ONE_DEVICE),
    Flag::no_effect("data-parallel-backend", Text, "How copies are started", ONE_DEVICE),
    Flag::no_effect("enable-expert-parallel", Switch, "Experts spread over devices", ONE_DEVICE),
    Flag::no_effect("distributed-executor-backend", Text, "How ranks are started", ONE_DEVICE),
    Flag::refused("nnodes", Whole, &["1"], ["Nodes", ONE_DEVICE]),
    Flag::refused("node-rank", Whole, &["0"], ["This node", ONE_DEVICE]),
    Flag::no_effect("master-addr", Text, "Address of the first node", ONE_DEVICE),
    Flag::no_effect("master-port", Whole, "Port of the first node", ONE_DEVICE),
    Flag::refused("headless", Switch, &[], ["No HTTP server", ONE_DEVICE]),
    Flag::no_effect("api-server-count", Whole, "HTTP processes", ONE_PROCESS),
    Flag::no_effect("disable-custom-all-reduce", Switch, "Reduction between devices", ONE_DEVICE),
    Flag::refused("enable-lora", Switch, &[], ["Adapters", NO_ADAPTERS]),
    Flag::refused("lora-modules", List, &[], ["Adapters", NO_ADAPTERS]),
    Flag::no_effect("max-loras", Whole, "Adapters in one step", NO_ADAPTERS),
    Flag::no_effect("max-lora-rank", Whole, "Rank of adapters", NO_ADAPTERS),
    Flag::no_effect("max-cpu-loras", Whole, "Adapters kept in memory", NO_ADAPTERS),
];

pub(super) static FRONT: &[Flag] = &[
    Flag::refused("ssl-ciphers", Text, &[""], ["TLS cipher suites", SAFE_CIPHERS]),
    Flag::refused("middleware", List, &[], ["Python middleware", PYTHON]),
    Flag::no_effect(
        "chat-template-content-format",
        Text,
        "How templates get content",
        "it is detected from the template",
    ),
    Flag::refused(
        "enable-auto-tool-choice",
        Switch,
        &[],
        ["Tool calls in answers", "tool calls are not parsed: clients would get their raw text"],
    ),
    Flag::refused(
        "tool-call-parser",
        Text,
        &[],
        ["Convention of tool calls", "tool calls are not parsed: clients would get their raw text"],
    ),
    Flag::refused("tool-parser-plugin", Text, &[""], ["Python parser", PYTHON]),
    Flag::refused(
        "reasoning-parser",
        Text,
        &[""],
        ["Convention of reasoning", "reasoning is not parsed: clients would get its raw text"],
    ),
    Flag::no_effect(
        "enable-prompt-tokens-details",
        Switch,
        "Usage tells how many prompt tokens were cached",
        "it always does",
    ),
    Flag::no_effect("enable-log-requests", Switch, "Log prompts", NO_PROMPTS),
    Flag::no_effect("disable-log-requests", Switch, "Log no prompts", NO_PROMPTS),
    Flag::no_effect("max-log-len", Whole, "Characters of a logged prompt", NO_PROMPTS),
    Flag::no_effect("enable-server-load-tracking", Switch, "Load in /load", "it always is"),
    Flag::no_effect("disable-frontend-multiprocessing", Switch, "One process", ONE_PROCESS),
    Flag::no_effect("log-config-file", Text, "Python's log configuration", OWN_LOGS),
];

pub(super) static KSERVE: &[Flag] = &[
    Flag::no_effect("max-threads", Whole, "gRPC threads", GRPC),
    Flag::no_effect("workers", Whole, "Server processes", ONE_PROCESS),
    Flag::no_effect("max-asyncio-workers", Whole, "Python threads", ONE_PROCESS),
    Flag::no_effect("event-loop", Text, "Python event loop", PYTHON),
    Flag::no_effect(
        "enable-latency-logging",
        Switch,
        "Times per request in the log",
        "they are in the access log and in /metrics",
    ),
    Flag::no_effect("configure-logging", Switch, "Install the log configuration", OWN_LOGS),
    Flag::no_effect("access-log-format", Text, "Python's access log template", OWN_LOGS),
    Flag::refused("predictor-host", Text, &[], ["Predictor behind a transformer", NO_PREDICTOR]),
    Flag::no_effect("predictor-protocol", Text, "Protocol towards the predictor", NO_PREDICTOR)
        .or(&["protocol"]),
    Flag::no_effect("predictor-use-ssl", Switch, "TLS towards the predictor", NO_PREDICTOR),
    Flag::no_effect(
        "predictor-request-timeout-seconds",
        Whole,
        "Patience with the predictor",
        NO_PREDICTOR,
    ),
    Flag::no_effect("predictor-request-retries", Whole, "Tries of the predictor", NO_PREDICTOR),
    Flag::no_effect(
        "enable-predictor-health-check",
        Switch,
        "Readiness follows the predictor",
        NO_PREDICTOR,
    ),
    Flag::no_effect("backend", Text, "Python backend", "there is one"),
    Flag::no_effect(
        "disable-lower-case",
        Switch,
        "Tokenizer keeps capitals",
        "the tokenizer does what its file says",
    ),
    Flag::no_effect(
        "disable-special-tokens",
        Switch,
        "Tokenizer adds no special tokens",
        "requests say so themselves: add_special_tokens",
    ),
    Flag::no_effect(
        "tensor-input-names",
        Text,
        "Tokenizer outputs sent to a predictor",
        NO_PREDICTOR,
    ),
    Flag::no_effect("return-token-type-ids", Switch, "Tokenizer output", ENCODERS),
    Flag::no_effect("return-offsets-mapping", Switch, "Tokenizer output", ENCODERS),
    Flag::no_effect("return-probabilities", Switch, "Classifier output", ENCODERS),
    Flag::no_effect("return-raw-logits", Switch, "Classifier output", ENCODERS),
];
