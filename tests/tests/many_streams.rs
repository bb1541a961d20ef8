//! 256 clients at once: nobody fails, and nobody's words depend on the company.

use std::thread;

use serde_json::{Value, json};
use tokenmill_tests::Server;
use tokenmill_tests::http::{chat_text, finish_reason};
use tokenmill_tests::server::MODEL;

const STREAMS: usize = 256;
const QUESTIONS: [&str; 12] = [
    "What is the capital of France?",
    "Name three colours.",
    "Write one line about the sea.",
    "What is two plus two?",
    "Who wrote Hamlet?",
    "Translate \"good morning\" to French.",
    "Give me a word that rhymes with \"light\".",
    "Why is the sky blue? Answer in one sentence.",
    "List the first five prime numbers.",
    "What do bees make?",
    "Say something kind.",
    "Erzähle etwas über Bäume. 🌳",
];

/// The text and the end of one answer.
fn ask(server: &Server, question: &str) -> (String, Option<String>) {
    let messages = json!([{"role": "user", "content": question}]);
    let mut body = json!({"model": MODEL, "messages": messages, "max_tokens": 16, "stream": true});
    body["temperature"] = json!(0);
    let mut stream = server.stream("/v1/chat/completions", &body).expect("a stream");
    let events: Vec<Value> = stream.rest().expect("a whole stream");
    (chat_text(&events), finish_reason(&events).map(str::to_owned))
}

#[test]
fn every_one_of_256_streams_reads_what_it_would_read_alone() {
    let server = Server::start(&[]).expect("a server");
    let alone = QUESTIONS.map(|question| ask(&server, question));
    for (question, (text, finish)) in QUESTIONS.iter().zip(&alone) {
        assert!(!text.is_empty(), "{question}: no text");
        assert!(matches!(finish.as_deref(), Some("length" | "stop")), "{question}: {finish:?}");
    }
    let together: Vec<_> = thread::scope(|scope| {
        let ask_one = |index: usize| {
            let server = &server;
            scope.spawn(move || ask(server, QUESTIONS[index % QUESTIONS.len()]))
        };
        let clients: Vec<_> = (0..STREAMS).map(ask_one).collect();
        clients.into_iter().map(|client| client.join().expect("a client")).collect()
    });
    for (index, answer) in together.iter().enumerate() {
        let which = index % QUESTIONS.len();
        assert_eq!(answer, &alone[which], "stream {index}: {}", QUESTIONS[which]);
    }
    assert_eq!(server.metric("vllm:num_requests_running").expect("a metric"), 0.0);
}
