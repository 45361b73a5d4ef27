//! The server.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::{Answer, listen};

/// The longest head of a request, in bytes.
const LONGEST: usize = 8192;
/// How long the head of a request may take, and how long a connection may be idle.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may live before it is asked to end.
const LIFE: Duration = Duration::from_secs(30);
/// Connections at a time. One more, and the oldest goes: a newer one is more likely to be a probe's.
const CONNECTIONS: usize = 128;
/// How long to wait for an address that is taken, first and at most.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long to wait when no connection can be accepted.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers requests by their path. It must not block.
pub trait Handler: Send + Sync + 'static {
    /// The answer, whatever the method is.
    fn answer(&self, path: &str) -> Answer;
}

impl<F: Fn(&str) -> Answer + Send + Sync + 'static> Handler for F {
    fn answer(&self, path: &str) -> Answer {
        self(path)
    }
}

/// Listens on an address and answers until it is dropped. An address that can't be listened on is said, with what to do,
/// and tried again.
pub async fn keep(address: SocketAddr, what: &str, remedy: &str, handler: Arc<impl Handler>) {
    let (mut pause, longest) = RETRY;
    let mut complaint = String::new();
    loop {
        match listen(address).and_then(tokio::net::TcpListener::from_std) {
            Ok(listener) => {
                info!(%address, "serving {what}");
                return accept(listener, handler).await;
            }
            Err(error) => {
                let text = error.to_string();
                if text != complaint {
                    warn!(%address, error = text, "can't serve {what}: {remedy}; retrying");
                    complaint = text;
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Answers the connections of a socket until it is dropped.
///
/// # Errors
/// The socket can't be watched.
pub async fn serve(listener: TcpListener, handler: Arc<impl Handler>) -> std::io::Result<()> {
    accept(tokio::net::TcpListener::from_std(listener)?, handler).await;
    Ok(())
}

async fn accept(listener: tokio::net::TcpListener, handler: Arc<impl Handler>) {
    // They end with this future.
    let mut tasks = JoinSet::new();
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = tasks.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                open.retain(|task| !task.is_finished());
                if open.len() >= CONNECTIONS
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                open.push_back(tasks.spawn(converse(stream, Arc::clone(&handler))));
            }
            Err(error) => {
                debug!(%error, "can't accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, handler: Arc<impl Handler>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = response(handler.answer(request.uri().path()));
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = match timeout(LIFE, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            // An answer that is on its way may arrive.
            connection.as_mut().graceful_shutdown();
            timeout(HEAD, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a connection broke");
    }
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let Answer { status, headers, body } = answer;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        // A value that can't be a header is left out: what matters is the status.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests;
