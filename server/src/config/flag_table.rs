//! The table of flags: those that are obeyed here, those of foreign runtimes in `foreign_flags.rs`.
//!
//! A flag of a foreign runtime that is missing here is an unknown flag: a warning, nothing else.

use super::flags::Flag;
use super::flags::Group;
use super::flags::Value::{Choice, Decimal, Json, List, Switch, Text, Whole};
use super::foreign_flags;

/// Every group of flags.
pub static GROUPS: &[Group] = &[
    Group { title: "Model", flags: MODEL },
    Group { title: "Memory and scheduling", flags: ENGINE },
    Group { title: "Classic models", flags: CLASSIC },
    Group { title: "HTTP", flags: HTTP },
    Group { title: "Chat and completions", flags: CHAT },
    Group { title: "Logs", flags: LOGS },
    Group {
        title: "Model files and the hub: without effect or refused",
        flags: foreign_flags::MODEL,
    },
    Group { title: "Engine: without effect or refused", flags: foreign_flags::ENGINE },
    Group {
        title: "Several devices and nodes: without effect or refused",
        flags: foreign_flags::PARALLEL,
    },
    Group { title: "Front end: without effect or refused", flags: foreign_flags::FRONT },
    Group { title: "KServe servers: without effect or refused", flags: foreign_flags::KSERVE },
];

static MODEL: &[Flag] = &[
    Flag::obeyed("model", Text, ["", "/models/a"], "Directory, file, hub id (org/name, org/name@revision, org/name:file.gguf) or address (s3://, https://, ...); the same as the positional MODEL"),
    Flag::obeyed("model-id", Text, ["", "org/name"], "Hub id, path or address; wins over --model-dir"),
    Flag::obeyed("model-dir", Text, ["/mnt/models", "/models/b"], "Directory, or an address: file://, hf://, s3://, gs://, hdfs://, oci://, modelscope://, https://; the default counts when it holds files"),
    Flag::obeyed("model-name", Text, ["model", "chat"], "Name under which the model is served"),
    Flag::obeyed("served-model-name", List, ["", "chat"], "Names under which the model is served; the first one appears in answers"),
    Flag::obeyed("revision", Text, ["main", "v1.0"], "Branch, tag or commit of the hub repository").or(&["model-revision"]),
    Flag::obeyed("download-dir", Text, ["$HF_HUB_CACHE", "/cache"], "Where models of the hub are kept, and in its folder storage those of other addresses"),
    Flag::obeyed("hf-token", Text, ["$HF_TOKEN", "secret"], "Token for the hub"),
    Flag::obeyed("dtype", Choice(&["auto", "float32", "float", "float16", "half", "bfloat16"]), ["auto", "float32"], "Type that float weights are kept in; auto keeps the stored one"),
    Flag::obeyed("max-model-len", Whole, ["the model's", "1k"], "Prompt plus completion in tokens; above the model's own limit only with ALLOW_LONG_MAX_MODEL_LEN=1; auto or -1 is the model's").or(&["max-length"]),
    Flag::obeyed("tokenizer", Text, ["the model's", "/tokenizer"], "Directory of another tokenizer.json"),
    Flag::obeyed("chat-template", Text, ["the model's", "{{ messages }}"], "Chat template: a file, or the template itself"),
    Flag::obeyed("generation-config", Choice(&["auto", "vllm"]), ["auto", "vllm"], "auto takes sampling defaults from the model's generation_config.json, vllm takes none"),
    Flag::obeyed("override-generation-config", Json, ["", "{\"temperature\":0.5}"], "Sampling defaults that win over the model's, as a JSON object"),
];

static ENGINE: &[Flag] = &[
    Flag::obeyed("threads", Whole, ["physical cores", "3"], "Threads of the CPU kernels"),
    Flag::obeyed("max-num-seqs", Whole, ["256", "8"], "Sequences in one step"),
    Flag::obeyed(
        "max-num-batched-tokens",
        Whole,
        ["2048", "512"],
        "Query tokens in one step; longer prompts are run in chunks",
    ),
    Flag::obeyed(
        "long-prefill-token-threshold",
        Whole,
        ["the step's", "256"],
        "Query tokens that one sequence may take from a step",
    ),
    Flag::obeyed(
        "max-waiting-seqs",
        Whole,
        ["1024", "16"],
        "Sequences that may wait beyond those that run; more are answered 429",
    ),
    Flag::obeyed(
        "max-num-queued-reqs",
        Whole,
        ["no limit", "16"],
        "Sequences in flight, running or waiting; more are answered 503",
    ),
    Flag::obeyed(
        "max-num-queued-tokens",
        Whole,
        ["no limit", "8k"],
        "Prompt tokens waiting to be run; more are answered 503",
    ),
    Flag::obeyed(
        "scheduling-policy",
        Choice(&["fcfs", "priority"]),
        ["fcfs", "priority"],
        "Order of the waiting queue: first come first served, or by the requests' priority",
    ),
    Flag::obeyed(
        "enable-prefix-caching",
        Switch,
        ["true", "false"],
        "Keep finished blocks of keys and values findable by their content",
    ),
    Flag::obeyed(
        "block-size",
        Whole,
        ["16", "32"],
        "Tokens per block of keys and values: a power of two, at least 8",
    ),
    Flag::obeyed(
        "kv-cache-memory-bytes",
        Whole,
        ["what max-num-seqs full sequences need, at most 40% of free memory and 16 GiB", "1GiB"],
        "Memory of keys and values",
    )
    .or(&["kv-cache-memory"]),
    Flag::obeyed(
        "kv-cache-dtype",
        Choice(&["auto", "float32", "float16", "bfloat16"]),
        ["auto", "float16"],
        "Type of keys and values; auto follows the weights",
    ),
    Flag::obeyed(
        "num-gpu-blocks-override",
        Whole,
        ["", "100"],
        "Blocks of keys and values, instead of their memory",
    ),
];

static HTTP: &[Flag] = &[
    Flag::obeyed("host", Text, ["0.0.0.0", "127.0.0.1"], "Address to listen on"),
    Flag::obeyed("http-port", Whole, ["8080", "9001"], "Port to listen on; 0 takes a free one")
        .or(&["port", "rest-port", "rest-api-port"]),
    Flag::obeyed(
        "api-key",
        List,
        ["$VLLM_API_KEY", "key"],
        "Keys that clients must send as a bearer token; none leaves the server open",
    ),
    Flag::obeyed(
        "api-key-file",
        Text,
        ["", "/keys"],
        "File with one key per line, read at start and on SIGHUP",
    ),
    Flag::obeyed(
        "admin-api-key",
        List,
        ["as --api-key", "key"],
        "Keys that open every route, and alone those that load and unload models",
    ),
    Flag::obeyed(
        "ssl-certfile",
        Text,
        ["none: clear text", "/tls/tls.crt"],
        "Certificate of the server, PEM: HTTP and gRPC are served over TLS; read again on SIGHUP",
    ),
    Flag::obeyed(
        "ssl-keyfile",
        Text,
        ["--ssl-certfile", "/tls/tls.key"],
        "Private key of the certificate, PEM, not encrypted",
    ),
    Flag::obeyed(
        "ssl-ca-certs",
        Text,
        ["", "/tls/ca.crt"],
        "Authorities that sign clients' certificates, PEM",
    ),
    Flag::obeyed(
        "ssl-cert-reqs",
        Whole,
        ["0", "2"],
        "Clients' certificates: 0 ignored, 1 checked when sent, 2 required",
    ),
    Flag::obeyed(
        "enable-ssl-refresh",
        Switch,
        ["false", "true"],
        "Look at the TLS files every 10 s and read them when they changed",
    ),
    Flag::obeyed("metrics-need-key", Switch, ["false", "true"], "/metrics needs a key too"),
    Flag::obeyed(
        "allowed-origins",
        Json,
        ["[\"*\"]", "[\"https://a\"]"],
        "Origins that browsers may call from (CORS), as a JSON list; [] is none",
    ),
    Flag::obeyed(
        "allowed-methods",
        Json,
        ["[\"*\"]", "[\"GET\"]"],
        "Methods that browsers may use (CORS), as a JSON list",
    ),
    Flag::obeyed(
        "allowed-headers",
        Json,
        ["[\"*\"]", "[\"x-a\"]"],
        "Request headers that browsers may send (CORS), as a JSON list",
    ),
    Flag::obeyed(
        "allow-credentials",
        Switch,
        ["false", "true"],
        "Browsers may send cookies (CORS)",
    ),
    Flag::obeyed("max-body-bytes", Whole, ["64MiB", "1MiB"], "Largest request body"),
    Flag::obeyed(
        "h11-max-incomplete-event-size",
        Whole,
        ["64KiB", "32KiB"],
        "Largest head of a request, at least 8 KiB",
    )
    .or(&["max-header-bytes"]),
    Flag::obeyed(
        "h11-max-header-count",
        Whole,
        ["256", "32"],
        "Most header lines of a request; more are answered 431",
    ),
    Flag::obeyed(
        "timeout-keep-alive",
        Whole,
        ["75", "5"],
        "Seconds after which idle connections are closed",
    ),
    Flag::obeyed(
        "write-timeout",
        Whole,
        ["60", "5"],
        "Seconds after which a connection whose client reads nothing is closed",
    ),
    Flag::obeyed(
        "sse-keep-alive-interval",
        Decimal,
        ["15", "1.5"],
        "Seconds between comments in a silent stream",
    ),
    Flag::obeyed(
        "request-timeout",
        Decimal,
        ["none", "30"],
        "Seconds after which a request that names no deadline ends with what it has",
    ),
    Flag::obeyed(
        "shutdown-grace",
        Decimal,
        ["0", "5"],
        "Seconds after SIGTERM in which requests are still accepted, while readiness is off",
    ),
    Flag::obeyed(
        "shutdown-timeout",
        Decimal,
        ["30", "5"],
        "Seconds that running requests get after it",
    ),
    Flag::obeyed(
        "enable-request-id-headers",
        Switch,
        ["true", "false"],
        "Answers carry X-Request-Id",
    ),
    Flag::obeyed("enable-docs-url", Switch, ["true", "false"], "Serve /docs and /openapi.json"),
    Flag::obeyed(
        "disable-fastapi-docs",
        Switch,
        ["false", "true"],
        "The same as --no-enable-docs-url",
    ),
    Flag::obeyed(
        "enable-tokenizer-info-endpoint",
        Switch,
        ["false", "true"],
        "Serve /tokenizer_info, which shows the chat template",
    ),
    Flag::obeyed(
        "root-path",
        Text,
        ["", "/llm"],
        "Prefix under which a proxy publishes every route",
    ),
];

static CLASSIC: &[Flag] = &[
    Flag::obeyed(
        "framework",
        Text,
        ["by content", "sklearn"],
        "Format of a classic model, as KServe's modelFormat names it: sklearn, xgboost, lightgbm",
    ),
    Flag::obeyed(
        "nthread",
        Whole,
        ["physical cores", "3"],
        "Threads on which classic models compute",
    ),
    Flag::obeyed(
        "predict-method",
        Text,
        ["predict", "predict_proba"],
        "Method of requests that name none; PREDICT_PROBA=true in the environment is predict_proba",
    ),
    Flag::obeyed(
        "max-in-flight-predictions",
        Whole,
        ["4096", "16"],
        "Requests to a classic model in the house; more are answered 429",
    ),
    Flag::obeyed(
        "max-batch-size",
        Whole,
        ["no batching", "32"],
        "Rows of a batch: waiting requests to a classic model are merged (its config.pbtxt wins)",
    ),
    Flag::obeyed(
        "max-batch-delay-us",
        Whole,
        ["0", "200"],
        "Microseconds that a request to a classic model waits for others",
    ),
    Flag::obeyed(
        "model-repository",
        Text,
        ["none", "/models"],
        "Directory of classic models or an address of one, served beside the language model",
    ),
    Flag::obeyed(
        "grpc-port",
        Whole,
        ["8081", "9000"],
        "Port of gRPC, open where classic models are served",
    ),
    Flag::obeyed("enable-grpc", Switch, ["true", "false"], "gRPC for classic models"),
    Flag::obeyed(
        "grpc-max-receive-message-length",
        Whole,
        ["67108864", "8388608"],
        "Bytes of a gRPC message received",
    ),
    Flag::obeyed(
        "grpc-max-send-message-length",
        Whole,
        ["67108864", "8388608"],
        "Bytes of a gRPC message sent",
    ),
    Flag::obeyed(
        "strict-kserve",
        Switch,
        ["false", "true"],
        "What KServe's servers answer also where this one answers better (docs/kserve.md has the list)",
    ),
    Flag::obeyed(
        "triton-metrics",
        Switch,
        ["false", "true"],
        "Series of classic models under Triton's names (nv_inference_*) in /metrics",
    ),
];

static CHAT: &[Flag] = &[
    Flag::obeyed("response-role", Text, ["assistant", "bot"], "Role in chat answers"),
    Flag::obeyed(
        "default-chat-template-kwargs",
        Json,
        ["{}", "{\"enable_thinking\":false}"],
        "Values that chat templates see unless the request gives them, as a JSON object",
    ),
    Flag::obeyed(
        "max-logprobs",
        Whole,
        ["20", "5"],
        "Most alternatives a request may ask for per token; -1 is no limit",
    ),
    Flag::obeyed(
        "default-max-tokens",
        Whole,
        ["what fits", "256"],
        "Completion tokens of requests that name no length",
    ),
    Flag::obeyed(
        "trust-request-chat-template",
        Switch,
        ["false", "true"],
        "Requests may bring their own chat template",
    ),
    Flag::obeyed(
        "strict-params",
        Switch,
        ["false", "true"],
        "Requests with unknown parameters are refused",
    ),
    Flag::obeyed(
        "enable-force-include-usage",
        Switch,
        ["false", "true"],
        "Streams always end with their usage",
    ),
    Flag::obeyed(
        "return-tokens-as-token-ids",
        Switch,
        ["false", "true"],
        "Tokens in log-probabilities are printed as token_id:N",
    ),
];

static LOGS: &[Flag] = &[
    Flag::obeyed(
        "log-level",
        Choice(&["trace", "debug", "info", "warning", "warn", "error", "critical"]),
        ["info", "debug"],
        "Least severe messages that are printed",
    )
    .or(&["uvicorn-log-level"]),
    Flag::obeyed(
        "log-format",
        Choice(&["human", "json"]),
        ["human", "json"],
        "Lines for people, or one JSON object per line",
    ),
    Flag::obeyed("access-log", Switch, ["true", "false"], "One line per request"),
    Flag::obeyed(
        "disable-access-log-for-endpoints",
        Text,
        ["health and metrics", "/v1/models,/load"],
        "Further paths without such a line, separated by commas",
    ),
    Flag::obeyed(
        "disable-uvicorn-access-log",
        Switch,
        ["false", "true"],
        "The same as --no-access-log",
    ),
];
