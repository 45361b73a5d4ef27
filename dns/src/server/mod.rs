//! The server: sockets, and the loops that serve them.

mod accept;
mod certificate;
mod datagram;
mod frames;
mod https;
mod secure;
mod socket;
mod stream;
mod tcp;
mod tls;
mod udp;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::secure::Handler;

pub use self::certificate::{Certificate, CertificateError};
use crate::crowd::Bounds;
use crate::full::Responder;
use crate::manner::Transport;
use crate::meter::Shard;

/// Why the server can't start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address can't be listened on.
    #[error("can't listen on {address} ({transport}): {source}: is another DNS server there, or the port not allowed?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// UDP, TCP or TLS.
        transport: &'static str,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// TLS can't be set up.
    #[error("TLS can't be set up for clients: {0}")]
    Tls(std::io::Error),
    /// The certificate can't be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A thread can't be made.
    #[error("can't start a thread: {0}: check the limit on processes")]
    Thread(std::io::Error),
}

/// Where and with how much to serve.
#[derive(Debug, Clone)]
pub struct Config {
    /// The addresses to listen on. `[::]` is both families.
    pub listen: Vec<SocketAddr>,
    /// How many sockets and threads serve UDP on each address; one for each core.
    pub threads: usize,
    /// How many TCP connections there may be, those with TLS among them.
    pub connections: Bounds,
    /// Where to serve over TLS and HTTPS, if anywhere.
    pub tls: Option<TlsConfig>,
}

/// Where and as whom to serve over TLS and HTTPS.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// The address to listen on for DNS over TLS, if any.
    pub listen: Option<SocketAddr>,
    /// The address to listen on for DNS over HTTPS, if any.
    pub https: Option<SocketAddr>,
    /// The file with the certificate that clients get, in PEM. It and the next are read again when they change.
    pub certificate: PathBuf,
    /// The file with its key, in PEM.
    pub key: PathBuf,
}

/// A running server. It stops when it is dropped, or with [`Server::stop`], which waits.
pub struct Server {
    udp: Vec<SocketAddr>,
    tcp: Vec<SocketAddr>,
    tls: Option<SocketAddr>,
    https: Option<SocketAddr>,
    certificate: Option<Arc<Certificate>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    tasks: JoinSet<()>,
    /// What goes on for as long as the server does.
    followers: JoinSet<()>,
    connections: Arc<accept::Connections>,
}

/// Listens for connections of this kind.
fn bind(address: SocketAddr, transport: &'static str) -> Result<(TcpListener, SocketAddr), ServerError> {
    let wrong = |source| ServerError::Bind { address, transport, source };
    let listener = socket::tcp(address).and_then(TcpListener::from_std).map_err(wrong)?;
    let bound = listener.local_addr().map_err(wrong)?;
    Ok((listener, bound))
}

impl Server {
    /// Binds every address and starts to serve.
    ///
    /// # Errors
    /// An address can't be listened on, a certificate can't be used, or a thread can't be made.
    pub async fn start(config: &Config, responder: &Arc<Responder>) -> Result<Self, ServerError> {
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(accept::Connections::new(config.connections));
        let mut server = Self {
            udp: vec![],
            tcp: vec![],
            tls: None,
            https: None,
            certificate: None,
            stop,
            threads: vec![],
            tasks: JoinSet::new(),
            followers: JoinSet::new(),
            connections: Arc::clone(&connections),
        };
        for &address in &config.listen {
            let wrong = |source| ServerError::Bind { address, transport: "UDP", source };
            let (listener, bound) = bind(address, "TCP")?;
            server.tcp.push(bound);
            let shard = responder.stats.meters.shared(address, Transport::Tcp);
            server.tasks.spawn(tcp::serve(listener, Arc::clone(responder), shard, Arc::clone(&connections)));
            let later = responder.stats.meters.shared(address, Transport::Udp);
            let mut bound = address;
            for _ in 0..config.threads.max(1) {
                let socket = socket::udp(bound).map_err(wrong)?;
                // With port 0 the first socket chooses it for all.
                bound = socket.local_addr().map_err(wrong)?;
                server.spawn_udp(
                    socket,
                    responder,
                    [responder.stats.meters.alone(address, Transport::Udp), Arc::clone(&later)],
                )?;
            }
            server.udp.push(bound);
            tracing::info!(%bound, threads = config.threads, "listening");
        }
        if let Some(TlsConfig { listen, https, certificate, key }) = &config.tls {
            let certificate = Arc::new(Certificate::read(certificate, key)?);
            if let Some(address) = *listen {
                let acceptor = secure::acceptor(b"dot", Arc::clone(&certificate)).map_err(ServerError::Tls)?;
                let (listener, bound) = bind(address, "TLS")?;
                server.tls = Some(bound);
                let shard = responder.stats.meters.shared(address, Transport::Tcp);
                let handler = Handler::new(Arc::clone(responder), shard, Transport::Tcp);
                let connections = Arc::clone(&connections);
                server.tasks.spawn(secure::serve(listener, acceptor, handler, connections, tls::talk));
                tracing::info!(%bound, "listening for TLS");
            }
            if let Some(address) = *https {
                let acceptor = secure::acceptor(b"h2", Arc::clone(&certificate)).map_err(ServerError::Tls)?;
                let (listener, bound) = bind(address, "HTTPS")?;
                server.https = Some(bound);
                let shard = responder.stats.meters.shared(address, Transport::Https);
                let handler = Handler::new(Arc::clone(responder), shard, Transport::Https);
                server.tasks.spawn(secure::serve(listener, acceptor, handler, connections, https::talk));
                tracing::info!(%bound, "listening for HTTPS");
            }
            server.certificate = Some(Arc::clone(&certificate));
            server.followers.spawn(async move { certificate.follow().await });
        }
        Ok(server)
    }

    /// The addresses that are served over UDP.
    #[must_use]
    pub fn udp_addresses(&self) -> &[SocketAddr] {
        &self.udp
    }

    /// The addresses that are served over TCP.
    #[must_use]
    pub fn tcp_addresses(&self) -> &[SocketAddr] {
        &self.tcp
    }

    /// The address that is served over TLS.
    #[must_use]
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls
    }

    /// The address that is served over HTTPS.
    #[must_use]
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https
    }

    /// The certificate that clients over TLS and HTTPS get.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }

    /// Stops to serve and waits until every loop has ended, and every connection whose queries wait for answers.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.connections.stop();
        self.followers.shutdown().await;
        while self.tasks.join_next().await.is_some() {}
        let threads = std::mem::take(&mut self.threads);
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().all(|thread| thread.join().is_ok()));
        if !matches!(joined.await, Ok(true)) {
            tracing::error!("a server thread panicked");
        }
    }

    fn spawn_udp(
        &mut self,
        socket: std::net::UdpSocket,
        responder: &Arc<Responder>,
        shards: [Arc<Shard>; 2],
    ) -> Result<(), ServerError> {
        let (responder, stop) = (Arc::clone(responder), Arc::clone(&self.stop));
        let worker = udp::Worker::new(socket, responder, shards, stop, tokio::runtime::Handle::current());
        let name = format!("dns-udp-{}", self.threads.len());
        let thread = std::thread::Builder::new().name(name).spawn(move || worker.run()).map_err(ServerError::Thread)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
