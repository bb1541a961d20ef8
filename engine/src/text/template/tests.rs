//! Tests of chat templates that the fixtures of the reference do not cover: bounds, errors, options.

use serde_json::{Map, Value, json};

use super::*;

fn render(source: &str, context: &Value) -> Result<String, TemplateError> {
    let template = ChatTemplate::compile(source, "<s>", "</s>")?;
    let kwargs = context.as_object().cloned().unwrap_or_default();
    template.render(&json!([]), None, None, false, false, &kwargs)
}

#[test]
fn hostile_templates_end_with_an_error() {
    let doubled = "{% set ns = namespace(x=['a']) %}{% for i in range(60) %}\
                   {% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
            .to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}\
         {% endfor %}{{ ns.x }}"
            .to_owned(),
        "{{ 'a' * 99999999999 }}".to_owned(),
        "{{ 'a'.ljust(99999999999) }}".to_owned(),
        "{{ 'aaaa'.replace('', 'b' * 100000000) }}".to_owned(),
        "{{ '{:>99999999999}'.format(1) }}".to_owned(),
        "{{ '%99999999999d' | format(1) }}".to_owned(),
        format!("{doubled}{{{{ ns.x | tojson }}}}"),
        format!("{doubled}{{{{ ns.x }}}}"),
        format!("{doubled}{{{{ ns.x | string }}}}"),
        format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(20000)),
        "{% if x %}a".to_owned() + &"{% elif x %}".repeat(80000) + "{% endif %}{{ x.y.z }}",
        "x".repeat(2 << 20),
        "{% if true %}".repeat(5000) + &"{% endif %}".repeat(5000),
    ] {
        let start = std::time::Instant::now();
        let result = render(&source, &json!({}));
        let shown: String = source.chars().take(90).collect();
        assert!(result.is_err(), "{shown}");
        assert!(start.elapsed().as_secs() < 60, "{shown} took {:?}", start.elapsed());
    }
}

#[test]
fn chains_of_operators_as_long_as_they_may_be() {
    for (source, expected) in [
        (format!("{{{{ {}1 }}}}", "not ".repeat(2000)), "True"),
        (format!("{{{{ {}1 }}}}", "-".repeat(8000)), "1"),
        (format!("{{{{ 1{} }}}}", "+1".repeat(4000)), "4001"),
        (format!("{{{{ 1{} }}}}", "|int".repeat(2000)), "1"),
        (format!("{{% if false %}}{}{{% endif %}}", "{% elif false %}".repeat(60000)), ""),
    ] {
        let shown: String = source.chars().take(40).collect();
        let result = render(&source, &json!({}));
        let bounded = matches!(result, Err(TemplateError::Compile(_)));
        assert!(bounded || result == Ok(expected.to_owned()), "{shown}: {result:?}");
    }
}

#[test]
fn errors_have_the_templates_words() {
    let raise = "{% macro check(x) %}{{ raise_exception('roles must alternate: ' ~ x) }}{% endmacro %}\
                 {{ check('user') }}";
    assert_eq!(
        render(raise, &json!({})),
        Err(TemplateError::Raised("roles must alternate: user".to_owned()))
    );
    for (source, part) in [
        ("{{ messages[0].role.name }}", "undefined"),
        ("a\n{{ 'x'.nothing() }}", "no method `nothing` (line 2)"),
        ("{{ messages.append(1) }}", "which templates may not"),
        ("{{ {}.pop('x') }}", "which templates may not"),
        ("{{ 'a'.split('') }}", "split(): empty separator"),
        ("{{ 'a'.startswith(1) }}", "startswith(): the argument must be a string"),
        ("{{ none_such | tojson }}", "not JSON serializable"),
        ("{{ 'a' + 1 }}", "+"),
        // Python formats strings with `%`; the engine has that as the `format` filter only.
        ("{{ '%s' % 'a' }}", "% operator"),
    ] {
        match render(source, &json!({})) {
            Err(TemplateError::Render(text)) => assert!(text.contains(part), "{source}: {text}"),
            other => panic!("{source}: {other:?}"),
        }
    }
    for source in
        ["{% if %}", "{{ x", "{% for x in y %}", "{% endgeneration %}", "{{ x | nofilter }}"]
    {
        let result = render(source, &json!({}));
        assert!(result.is_err(), "{source}: {result:?}");
    }
}

#[test]
fn options_that_do_not_fit_together_are_refused() {
    let template = ChatTemplate::compile("{{ messages[0].content }}", "", "").unwrap();
    let messages = json!([{"role": "user", "content": "hi"}]);
    let render = |messages: &Value, generate, go_on, kwargs: Value| {
        template.render(messages, None, None, generate, go_on, kwargs.as_object().unwrap())
    };
    assert_eq!(
        render(&messages, true, true, json!({})),
        Err(TemplateError::ContinueWithGenerationPrompt)
    );
    assert_eq!(
        render(&messages, false, false, json!({"tools": []})),
        Err(TemplateError::ReservedArgument("tools".to_owned()))
    );
    assert_eq!(render(&json!({}), false, false, json!({})), Err(TemplateError::Messages));
    assert_eq!(render(&json!(["x"]), false, false, json!({})), Err(TemplateError::Messages));
    assert_eq!(render(&json!([]), false, true, json!({})), Err(TemplateError::NothingToContinue));
    let hidden = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    assert_eq!(render(&hidden, false, true, json!({})), Err(TemplateError::ContinuationLost));
}

#[test]
fn the_date_is_todays() {
    let year = render("{{ strftime_now('%Y') }}", &json!({})).unwrap();
    assert!(year.len() == 4 && *year >= *"2024", "{year}");
}

#[test]
fn content_format_is_detected() {
    let chatml = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}";
    let concatenated = "{% for m in messages %}{{ m.role + ': ' + m.content }}{% endfor %}";
    let json = "{% for m in messages %}{{ m.content | tojson }}{% endfor %}";
    let trimmed = "{% for m in messages %}{{ m['content'] | trim }}{% endfor %}";
    let parts = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
                 {% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}\
                 {% endif %}{% endfor %}";
    let no_system = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}\
                     {% for m in messages %}{% for p in m.content %}{{ p['text'] }}{% endfor %}{% endfor %}";
    for (source, expected) in [
        (chatml, ContentFormat::String),
        (concatenated, ContentFormat::String),
        (json, ContentFormat::String),
        (trimmed, ContentFormat::String),
        (parts, ContentFormat::OpenAi),
        (no_system, ContentFormat::OpenAi),
        ("constant", ContentFormat::String),
    ] {
        let template = ChatTemplate::compile(source, "", "").unwrap();
        assert_eq!(template.content_format(), expected, "{source}");
    }
}

#[test]
fn kwargs_win_over_special_tokens() {
    assert_eq!(
        render("{{ bos_token }}{{ eos_token }}", &json!({"bos_token": "B"})).unwrap(),
        "B</s>"
    );
    assert_eq!(
        ChatTemplate::compile("{{ x }}", "", "")
            .unwrap()
            .render(&json!([]), None, None, false, false, &Map::new())
            .unwrap(),
        ""
    );
}
