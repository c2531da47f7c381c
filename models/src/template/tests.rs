//! Chat templates: the prompts of known models, and what a template may and may not do.

use protocol::api::Role;
use serde_json::json;

use super::*;

fn message(role: Role, content: &str) -> Message {
    Message::new(role, content)
}

fn check(source: &str, kwargs: serde_json::Value, want: Result<&str, TemplateError>) {
    let template = ChatTemplate::compile(source, "<s>".into(), "</s>".into()).unwrap();
    let messages = [
        message(Role::User, "a <b> & é"),
        message(Role::Assistant, "ok "),
    ];
    let kwargs = kwargs.as_object().unwrap();
    let got = template.render(&messages, kwargs, Some("2026-11-22"));
    assert_eq!(got, want.map(str::to_owned), "{source}");
}

#[test]
fn renders_what_hugging_face_renders() {
    let none = json!({});
    check(
        "{{ messages[0]['content'] }}|{{ bos_token }}",
        none.clone(),
        Ok("a <b> & é|<s>"),
    );
    check(
        "{{ messages[1].content.strip().upper() }}",
        none.clone(),
        Ok("OK"),
    );
    check(
        "{{ messages[0]|tojson }}",
        none.clone(),
        Ok(r#"{"role": "user", "content": "a <b> & é"}"#),
    );
    check(
        "{% for m in messages %}\n    {% if m.role == 'user' %}\nx{% endif %}\n{% endfor %}\n",
        none.clone(),
        Ok("x"),
    );
    check(
        "{{ strftime_now('%d %b %Y') }}",
        none.clone(),
        Ok("22 Nov 2026"),
    );
    check(
        "a\n{%- generation -%}\n b {% endgeneration %}c",
        none.clone(),
        Ok("ab c"),
    );
    check(
        "{{ missing }}{{ 'g' if add_generation_prompt }}",
        none,
        Ok("g"),
    );
}

#[test]
fn kwargs_reach_the_template_but_not_our_names() {
    let source = "{{ 'g' if add_generation_prompt else 'n' }}{{ thinking }}{{ o|tojson }}";
    let kwargs =
        json!({"add_generation_prompt": false, "thinking": true, "o": {"z": 1, "a": [2.5, null]}});
    check(source, kwargs, Ok(r#"nTrue{"z": 1, "a": [2.5, null]}"#));
    check(
        "{{ messages }}",
        json!({"messages": []}),
        Err(TemplateError::Reserved("messages".into())),
    );
}

#[test]
fn a_template_can_refuse() {
    let refused = TemplateError::Refused("roles must alternate".into());
    check(
        "{{ raise_exception('roles must alternate') }}",
        json!({}),
        Err(refused),
    );
}

#[test]
fn the_day_must_be_given() {
    let template =
        ChatTemplate::compile("{{ strftime_now('%Y') }}", String::new(), String::new()).unwrap();
    assert!(template.asks_for_date());
    let error = template.render(&[], &Map::new(), None).unwrap_err();
    assert!(matches!(error, TemplateError::Render(_)), "{error}");
}
