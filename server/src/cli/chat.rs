//! `tokenmill chat`: a conversation in the terminal, streamed.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::openai_client::{ClientError, OpenAiClient, event_text};

const COMMANDS: &str = "/reset forgets the conversation, /system TEXT sets the system message, \
/history shows the conversation, /exit ends";

/// Talk to a server in this terminal.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  tokenmill chat
  tokenmill chat --url http://server:8080 --system 'Answer in one sentence.'
  tokenmill chat --message 'Why is the sky blue?'
  echo 'Why is the sky blue?' | tokenmill chat

In the conversation: /reset, /system TEXT, /history, /exit (or Ctrl-D).")]
pub(super) struct ChatArgs {
    /// Server, with or without /v1 at its end.
    #[arg(long, visible_alias = "base-url", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Model; the first one that the server lists when absent.
    #[arg(long)]
    model: Option<String>,
    /// Key sent as a bearer token.
    #[arg(long)]
    api_key: Option<String>,
    /// System message.
    #[arg(long)]
    system: Option<String>,
    /// Ask this and end.
    #[arg(long, short)]
    message: Option<String>,
    /// Temperature; the server's default when absent.
    #[arg(long)]
    temperature: Option<f64>,
    /// Completion tokens at most; the server's default when absent.
    #[arg(long)]
    max_tokens: Option<u32>,
}

impl ChatArgs {
    /// With this key unless one was given.
    pub(super) fn or_key(mut self, key: Option<String>) -> Self {
        self.api_key = self.api_key.or(key);
        self
    }
}

/// A conversation so far.
struct Session {
    client: OpenAiClient,
    model: String,
    system: Option<String>,
    turns: Vec<Value>,
    temperature: Option<f64>,
    max_tokens: Option<u32>,
}

/// What follows a line.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Go,
    Exit,
}

/// Runs the conversation.
pub(super) async fn run(args: ChatArgs) -> anyhow::Result<()> {
    let client = OpenAiClient::new(&args.url, args.api_key)?;
    let model = match args.model {
        Some(model) => model,
        None => client.first_model().await.with_context(|| {
            format!("no server at {}? Start one with: tokenmill serve MODEL", client.base())
        })?,
    };
    let mut session = Session {
        client,
        model,
        system: args.system,
        turns: Vec::new(),
        temperature: args.temperature,
        max_tokens: args.max_tokens,
    };
    if let Some(message) = args.message {
        session.ask(&message, &mut io::stdout()).await?;
        return Ok(());
    }
    if io::stdin().is_terminal() {
        converse(&mut session).await
    } else {
        each_line(&mut session).await
    }
}

/// With a person: a prompt, errors that do not end it, Ctrl-C that ends it at once.
async fn converse(session: &mut Session) -> anyhow::Result<()> {
    println!("{}: {COMMANDS}.", session.model);
    loop {
        print!("> ");
        io::stdout().flush()?;
        let read = tokio::task::spawn_blocking(read_line);
        let line = tokio::select! {
            line = read => line??,
            _ = tokio::signal::ctrl_c() => None,
        };
        let Some(line) = line else {
            println!();
            return Ok(());
        };
        let mut out = io::stdout();
        tokio::select! {
            next = session.line(&line, &mut out) => match next {
                Ok(Next::Exit) => return Ok(()),
                Ok(Next::Go) => {}
                Err(error) => eprintln!("error: {error}"),
            },
            _ = tokio::signal::ctrl_c() => {
                session.forget_unanswered();
                println!("\n(stopped)");
            }
        }
    }
}

/// With a pipe: every line is a message, the first error ends it.
async fn each_line(session: &mut Session) -> anyhow::Result<()> {
    while let Some(line) = read_line()? {
        if session.line(&line, &mut io::stdout()).await? == Next::Exit {
            break;
        }
    }
    Ok(())
}

fn read_line() -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = io::stdin().lock().read_line(&mut line)?;
    Ok((length > 0).then_some(line))
}

impl Session {
    /// Obeys a command or asks a message.
    async fn line(&mut self, line: &str, out: &mut impl Write) -> anyhow::Result<Next> {
        let line = line.trim();
        let (command, rest) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "" => {}
            "/exit" | "/quit" => return Ok(Next::Exit),
            "/reset" => self.turns.clear(),
            "/system" => {
                self.system = Some(rest.trim().to_owned()).filter(|text| !text.is_empty());
            }
            "/history" => {
                for turn in self.messages() {
                    let text = |name: &str| turn[name].as_str().unwrap_or_default().to_owned();
                    writeln!(out, "{}: {}", text("role"), text("content"))?;
                }
            }
            "/help" => writeln!(out, "{COMMANDS}")?,
            _ if command.starts_with('/') => {
                writeln!(out, "unknown command {command}: {COMMANDS}")?
            }
            _ => self.ask(line, out).await?,
        }
        Ok(Next::Go)
    }

    fn messages(&self) -> Vec<Value> {
        let system = self.system.iter().map(|text| json!({"role": "system", "content": text}));
        system.chain(self.turns.iter().cloned()).collect()
    }

    /// Sends the conversation with one more message and prints the answer as it comes.
    async fn ask(&mut self, message: &str, out: &mut impl Write) -> anyhow::Result<()> {
        self.turns.push(json!({"role": "user", "content": message}));
        let mut body = json!({"model": self.model, "messages": self.messages(), "stream": true});
        if let Some(temperature) = self.temperature {
            body["temperature"] = temperature.into();
        }
        if let Some(max_tokens) = self.max_tokens {
            body["max_tokens"] = max_tokens.into();
        }
        let mut answer = String::new();
        let mut printed = Ok(());
        let result = self
            .client
            .stream("chat/completions", &body, |event| {
                let text = printable(&event_text(event));
                if printed.is_ok() && !text.is_empty() {
                    printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
                }
                answer.push_str(&text);
            })
            .await;
        if !answer.is_empty() {
            writeln!(out)?;
        }
        self.settle(answer, result)?;
        Ok(printed?)
    }

    /// Keeps an answer, or forgets the message that got none.
    fn settle(
        &mut self,
        answer: String,
        result: Result<(), ClientError>,
    ) -> Result<(), ClientError> {
        match result {
            Ok(()) => self.turns.push(json!({"role": "assistant", "content": answer})),
            Err(error) => {
                self.forget_unanswered();
                return Err(error);
            }
        }
        Ok(())
    }

    fn forget_unanswered(&mut self) {
        if self.turns.last().is_some_and(|turn| turn["role"] == "user") {
            self.turns.pop();
        }
    }
}

/// Without control characters: what a model writes must not move the cursor or retitle the window.
fn printable(text: &str) -> String {
    text.chars().filter(|&c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::test_server::{Answer, TestServer};

    fn session(server: &TestServer) -> Session {
        Session {
            client: OpenAiClient::new(&server.url, None).unwrap(),
            model: "m".to_owned(),
            system: None,
            turns: Vec::new(),
            temperature: Some(0.0),
            max_tokens: None,
        }
    }

    fn say(words: &[&str]) -> Answer {
        let mut events: Vec<String> = words
            .iter()
            .map(|word| json!({"choices": [{"delta": {"content": word}}]}).to_string())
            .collect();
        events.push("[DONE]".to_owned());
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        Answer::events(&events)
    }

    #[tokio::test]
    async fn the_conversation_grows_and_commands_change_it() {
        let server = TestServer::start(|asked| {
            assert_eq!(asked.path, "/v1/chat/completions");
            say(&["Hel", "lo\u{1b}[2J!"])
        });
        let mut session = session(&server);
        let mut out = Vec::new();
        for line in ["/system Be brief.\n", "hi\n", "", "again\n", "/nonsense", "/reset", "new"] {
            assert_eq!(session.line(line, &mut out).await.unwrap(), Next::Go);
        }
        session.line("/history", &mut out).await.unwrap();
        assert_eq!(session.line("/exit", &mut out).await.unwrap(), Next::Exit);
        let out = String::from_utf8(out).unwrap();
        assert!(out.starts_with("Hello[2J!\nHello[2J!\nunknown command /nonsense"), "{out:?}");
        assert!(out.ends_with("system: Be brief.\nuser: new\nassistant: Hello[2J!\n"), "{out:?}");

        let bodies = server.bodies();
        let roles = |body: &Value| {
            let messages = body["messages"].as_array().unwrap();
            messages.iter().map(|m| m["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(roles(&bodies[0]), ["system", "user"]);
        assert_eq!(roles(&bodies[1]), ["system", "user", "assistant", "user"]);
        assert_eq!(roles(&bodies[2]), ["system", "user"]);
        assert_eq!(bodies[2]["temperature"], 0.0);
    }

    #[tokio::test]
    async fn a_message_without_an_answer_is_forgotten() {
        let server =
            TestServer::start(|_| Answer::json(400, r#"{"error":{"message":"no template"}}"#));
        let mut session = session(&server);
        let error = session.line("hi", &mut Vec::new()).await.unwrap_err().to_string();
        assert_eq!(error, "400: no template");
        assert!(session.turns.is_empty());
    }
}
