//! HTTP/2 with prior knowledge: one connection, shared by all requests, and
//! opened again when it is gone.

use std::sync::Arc;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;

use super::{ConnectError, Driver};
use crate::{Body, hold};

#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Locked while it is opened: the first of many requests opens it for all.
    open: Mutex<Option<Arc<Connection>>>,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    _driver: Driver,
}

pub(super) async fn send(
    shared: &super::Shared,
    request: Request<Body>,
) -> Result<Response<Body>, ConnectError> {
    let mut request = in_absolute_form(request, shared.authority())?;
    // Twice, since the kept connection may be closing.
    for last in [false, true] {
        let connection = connection(shared).await?;
        let mut sender = connection.sender.clone();
        let error = match sender.ready().await {
            Err(error) => error,
            Ok(()) => match sender.try_send_request(request).await {
                // The connection lives as long as the answers on it.
                Ok(response) => {
                    return Ok(response.map(|body| hold(Body::new(body), connection)));
                }
                Err(mut error) => match error.take_message() {
                    None => return Err(ConnectError::Broken(error.into_error().into())),
                    Some(unsent) => {
                        request = unsent;
                        error.into_error()
                    }
                },
            },
        };
        if last {
            return Err(ConnectError::Open(error.into()));
        }
    }
    unreachable!("the second round returns")
}

async fn connection(shared: &super::Shared) -> Result<Arc<Connection>, ConnectError> {
    let mut open = shared.http2.open.lock().await;
    if let Some(connection) = open.as_ref().filter(|open| !open.sender.is_closed()) {
        return Ok(Arc::clone(connection));
    }
    let stream = shared.connect().await?;
    let (sender, driving) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| ConnectError::Open(error.into()))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driving.await {
            tracing::debug!(%error, "connection broke");
        }
    });
    let connection = Arc::new(Connection {
        sender,
        _driver: Driver(driver),
    });
    *open = Some(Arc::clone(&connection));
    Ok(connection)
}

/// The authority in the target, for `:authority`, and no `Host`.
fn in_absolute_form(
    mut request: Request<Body>,
    own_authority: &str,
) -> Result<Request<Body>, ConnectError> {
    let refused = |error: http::Error| ConnectError::Request(error.into());
    let authority = match (
        request.headers_mut().remove(HOST),
        request.uri().authority(),
    ) {
        (Some(host), _) => {
            Authority::try_from(host.as_bytes()).map_err(|error| refused(error.into()))?
        }
        (None, Some(authority)) => authority.clone(),
        (None, None) => {
            Authority::try_from(own_authority).map_err(|error| refused(error.into()))?
        }
    };
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::builder()
        .scheme(Scheme::HTTP)
        .authority(authority)
        .path_and_query(path.unwrap_or(PathAndQuery::from_static("/")))
        .build()
        .map_err(refused)?;
    Ok(request)
}
