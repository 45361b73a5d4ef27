//! The client's way through several addresses.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::uri::{Authority, Uri};
use http::{Request, Response};
use hyper_rustls::{HttpsConnectorBuilder, ResolveServerName};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use rustls::pki_types::ServerName;
use tower::{BoxError, Service, ServiceBuilder};

use super::access::AccessError;
use super::heard::{self, Heard, Tapped};
use super::requests::Requests;
use super::servers::Servers;
use crate::causes;

/// The name that the certificate of every API server has.
const SERVICE: &str = "kubernetes.default.svc";
/// How long a connection may take: a server that is gone without a word costs this much.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the head of an answer may take, and the next part of one. A list of all objects takes long at its end, not before
/// its head.
const ANSWER: Duration = Duration::from_secs(60);
/// A connection on which nothing comes is asked whether anybody is there, and is given up after this long.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// Makes a client that asks those servers.
///
/// # Errors
/// Certificates or credentials can't be used.
pub(super) fn client(
    config: &Config,
    servers: &Arc<Servers>,
    heard: &Arc<Heard>,
    requests: &Arc<Requests>,
) -> Result<Client, AccessError> {
    let failed = |error| AccessError::Client(Box::new(error));
    let (idle, interval, probes) = KEEPALIVE;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(idle));
    http.set_keepalive_interval(Some(interval));
    http.set_keepalive_retries(Some(probes));
    http.set_tcp_user_timeout(Some(idle + interval * probes));
    let names = Names { servers: Arc::clone(servers), fixed: config.tls_server_name.clone() };
    let https = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config().map_err(failed)?)
        .https_or_http()
        .with_server_name_resolver(names)
        .enable_http1()
        .wrap_connector(http);
    let hyper = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(https);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .layer_fn(|inner| Failover {
            inner,
            servers: Arc::clone(servers),
            heard: Arc::clone(heard),
            requests: Arc::clone(requests),
        })
        .service(hyper);
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// Against which name a certificate is checked.
#[derive(Debug)]
struct Names {
    servers: Arc<Servers>,
    /// The kubeconfig's `tls-server-name`.
    fixed: Option<String>,
}

impl ResolveServerName for Names {
    fn resolve(&self, uri: &Uri) -> Result<ServerName<'static>, BoxError> {
        let address = uri.authority().map(Authority::as_str).unwrap_or_default();
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = match &self.fixed {
            _ if self.servers.is_named(address) => SERVICE,
            Some(fixed) => fixed,
            None => host,
        };
        Ok(ServerName::try_from(name.to_owned())?)
    }
}

/// Sends each request to the current address and notes whether there was an answer, and what comes of watches.
#[derive(Debug, Clone)]
struct Failover<S> {
    inner: S,
    servers: Arc<Servers>,
    heard: Arc<Heard>,
    requests: Arc<Requests>,
}

impl<S, B> Service<Request<Body>> for Failover<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = Response<Tapped<B>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let address = self.servers.current();
        if let Some(uri) = at(request.uri(), &address) {
            *request.uri_mut() = uri;
        }
        let watched = heard::watched(request.uri());
        let method = request.method().clone();
        let answer = self.inner.call(request);
        let (servers, heard, requests) =
            (Arc::clone(&self.servers), Arc::clone(&self.heard), Arc::clone(&self.requests));
        let begun = Instant::now();
        Box::pin(async move {
            let result = match tokio::time::timeout(ANSWER, answer).await {
                Ok(result) => result.map_err(Into::into),
                Err(_) => Err(format!("no answer within {} s", ANSWER.as_secs()).into()),
            };
            let status = result.as_ref().ok().map(|response| response.status().as_u16());
            requests.note(method.as_str(), &address, status, begun.elapsed());
            match &result {
                // It answers, and says that it can't: its database is away, or it is going down.
                Ok(response) if response.status().is_server_error() => {
                    servers.failed(&address, response.status().as_str());
                }
                Ok(_) => servers.answered(),
                Err(error) if lacks_name(error.as_ref()) && servers.lacks_address(&address) => {
                    tracing::info!(
                        server = address,
                        "the certificate of the API server does not contain its address: verifying it for {SERVICE} \
                         instead"
                    );
                }
                Err(error) => servers.failed(&address, &causes(error.as_ref())),
            }
            result.map(|response| {
                let watched = watched.filter(|_| response.status().is_success());
                response.map(|body| match watched {
                    Some(kind) => Tapped::watch(body, heard, kind),
                    None => Tapped::plain(body, ANSWER, servers, address),
                })
            })
        })
    }
}

/// The same request at another address.
fn at(uri: &Uri, address: &str) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(address.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// Whether a certificate is for somebody else.
fn lacks_name(error: &(dyn Error + 'static)) -> bool {
    use rustls::{CertificateError, Error as TlsError};
    let is_name = |error: &(dyn Error + 'static)| {
        matches!(
            error.downcast_ref::<TlsError>(),
            Some(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
            ))
        )
    };
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error is its content's envelope and names the content's cause as its own.
        let content = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        if is_name(error) || content.is_some_and(|content| is_name(content) || lacks_name(content)) {
            return true;
        }
        next = error.source();
    }
    false
}
