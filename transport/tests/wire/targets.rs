//! Authority, path and query as they were on the wire.

use axum::Router;
use axum::extract::Request;
use transport::RequestTarget;

use crate::running::Running;

async fn tell(request: Request) -> String {
    match RequestTarget::of(&request) {
        Ok(target) => format!("{} {} {:?}", target.authority, target.path, target.query),
        Err(error) => error.to_string(),
    }
}

async fn check(cases: &[(&str, &str)]) {
    let running = Running::start(Router::new().fallback(tell)).await;
    for (head, expected) in cases {
        let answer = running
            .answer(format!("{head}\r\nconnection: close\r\n\r\n").as_bytes())
            .await;
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, *expected, "to {head:?}");
    }
}

#[tokio::test]
async fn host_and_absolute_target_give_the_authority() {
    check(&[
        ("GET /a HTTP/1.1\r\nhost: A.example", "a.example /a None"),
        ("GET /a HTTP/1.1\r\nhost: a.example:80", "a.example /a None"),
        ("GET /a HTTP/1.1\r\nhost: a.example:", "a.example /a None"),
        (
            "GET /a HTTP/1.1\r\nhost: a.example:0443",
            "a.example:443 /a None",
        ),
        ("GET /a HTTP/1.1\r\nhost: [::1]:8080", "[::1]:8080 /a None"),
        (
            "GET http://a.example/a HTTP/1.1\r\nhost: a.example:80",
            "a.example /a None",
        ),
        (
            "GET http://a.example HTTP/1.1\r\nhost: a.example",
            "a.example / None",
        ),
    ])
    .await;
}

#[tokio::test]
async fn an_authority_in_doubt_is_an_error() {
    let malformed = "the request's authority is malformed";
    check(&[
        ("GET / HTTP/1.1", "the request names no authority"),
        (
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a",
            "the request has several Host headers",
        ),
        (
            "GET http://b/ HTTP/1.1\r\nhost: a",
            "the Host header and the target's authority differ",
        ),
        (
            "GET http://a/ HTTP/1.1\r\nhost: a:8080",
            "the Host header and the target's authority differ",
        ),
        ("GET / HTTP/1.1\r\nhost: ", malformed),
        ("GET / HTTP/1.1\r\nhost: :80", malformed),
        ("GET / HTTP/1.1\r\nhost: user@a", malformed),
        ("GET / HTTP/1.1\r\nhost: a:+80", malformed),
        ("GET / HTTP/1.1\r\nhost: a:99999", malformed),
        ("GET / HTTP/1.1\r\nhost: a/b", malformed),
        ("GET / HTTP/1.1\r\nhost: a, b", malformed),
    ])
    .await;
}

#[tokio::test]
async fn path_and_query_are_left_as_they_are() {
    check(&[
        (
            "GET /a%2Fb%c3/../x//y;z HTTP/1.1\r\nhost: a",
            "a /a%2Fb%c3/../x//y;z None",
        ),
        (
            "GET /?a=%20+b&&=? HTTP/1.1\r\nhost: a",
            "a / Some(\"a=%20+b&&=?\")",
        ),
        ("GET /a? HTTP/1.1\r\nhost: a", "a /a Some(\"\")"),
    ])
    .await;
}
