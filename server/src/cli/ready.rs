//! The line that says where the server is and what to try.

use std::net::SocketAddr;

use serde_json::json;

/// What the model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A language model with a chat template.
    Chat,
    /// One without.
    Completion,
    /// A classic model.
    Classic,
}

/// What a client needs besides the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Access {
    /// A key.
    pub(super) keyed: bool,
    /// TLS.
    pub(super) tls: bool,
}

/// One line: the address and a request that works when pasted.
pub(super) fn line(address: SocketAddr, model: &str, kind: Kind, access: Access) -> String {
    let shown = match address.ip() {
        ip if !ip.is_unspecified() => address,
        ip if ip.is_ipv4() => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        _ => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
    };
    let scheme = if access.tls { "https" } else { "http" };
    let shown = format!("{scheme}://{shown}");
    let key = if access.keyed { " -H \"Authorization: Bearer $KEY\"" } else { "" };
    let (route, body) = match kind {
        Kind::Classic if model.is_empty() => {
            return format!("ready: {shown}, try: curl{key} '{shown}/v2/models'");
        }
        Kind::Classic => {
            return format!("ready: {shown}, try: curl{key} '{shown}/v2/models/{model}'");
        }
        Kind::Chat => {
            let messages = json!([{"role": "user", "content": "Say hello."}]);
            ("chat/completions", json!({"model": model, "messages": messages}))
        }
        Kind::Completion => {
            let prompt = "Once upon a time";
            ("completions", json!({"model": model, "prompt": prompt, "max_tokens": 32}))
        }
    };
    let body = body.to_string().replace('\'', "'\\''");
    format!(
        "ready: {shown}, try: curl {shown}/v1/{route} \
         -H 'Content-Type: application/json'{key} -d '{body}'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_can_be_pasted() {
        let any: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(
            line(any, "it's", Kind::Chat, Access::default()),
            "ready: http://127.0.0.1:8080, try: curl http://127.0.0.1:8080/v1/chat/completions \
             -H 'Content-Type: application/json' -d '{\"model\":\"it'\\''s\",\
             \"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}]}'"
        );
        let six: SocketAddr = "[::1]:1".parse().unwrap();
        let line = line(six, "m", Kind::Completion, Access { keyed: true, tls: true });
        assert!(line.contains("https://[::1]:1/v1/completions") && line.contains("Bearer $KEY"));
    }
}
