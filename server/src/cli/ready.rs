//! The line that says where the server is and what to try.

use std::net::SocketAddr;

use serde_json::json;

/// One line: the address and a request that works when pasted.
pub(super) fn line(address: SocketAddr, model: &str, chats: bool, keyed: bool) -> String {
    let shown = match address.ip() {
        ip if !ip.is_unspecified() => address,
        ip if ip.is_ipv4() => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        _ => SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port()),
    };
    let (route, body) = if chats {
        let messages = json!([{"role": "user", "content": "Say hello."}]);
        ("chat/completions", json!({"model": model, "messages": messages}))
    } else {
        ("completions", json!({"model": model, "prompt": "Once upon a time", "max_tokens": 32}))
    };
    let key = if keyed { " -H \"Authorization: Bearer $KEY\"" } else { "" };
    let body = body.to_string().replace('\'', "'\\''");
    format!(
        "ready: http://{shown}, try: curl http://{shown}/v1/{route} \
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
            line(any, "it's", true, false),
            "ready: http://127.0.0.1:8080, try: curl http://127.0.0.1:8080/v1/chat/completions \
             -H 'Content-Type: application/json' -d '{\"model\":\"it'\\''s\",\
             \"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}]}'"
        );
        let six: SocketAddr = "[::1]:1".parse().unwrap();
        let line = line(six, "m", false, true);
        assert!(line.contains("http://[::1]:1/v1/completions") && line.contains("Bearer $KEY"));
    }
}
