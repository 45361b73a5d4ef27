//! DNS over TLS for clients: the answers of the other transports, and a certificate that can change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Limits;
use fairlead_dns::server::{Config, Server, TlsConfig};
use hickory_proto::op::{Edns, Message, ResponseCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{Tiers, message, query, run};
use crate::elsewhere::Upstream;
use crate::fixture::{forwarder, responder, zone};

const PATIENCE: Duration = Duration::from_secs(10);
const OWN: &str = "web.shop.svc.cluster.local A";

/// Files with a certificate and its key, which go when this does.
struct Files {
    folder: PathBuf,
}

impl Files {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fairlead-dns-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn certificate(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    fn key(&self) -> PathBuf {
        self.folder.join("tls.key")
    }

    /// Writes a new certificate, and returns it in PEM.
    fn renew(&self) -> String {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["dns.example".to_owned()]).unwrap();
        std::fs::write(self.certificate(), cert.pem()).unwrap();
        std::fs::write(self.key(), signing_key.serialize_pem()).unwrap();
        cert.pem()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A server that also serves over TLS, and forwards there.
async fn tiers(upstream: Option<&Upstream>, files: &Files, connections: Bounds) -> Tiers {
    let forwarder = upstream.and_then(|upstream| forwarder(&[upstream.address], Limits::default()));
    let responder = responder(zone(), forwarder);
    let local = "127.0.0.1:0".parse().unwrap();
    let tls = Some(TlsConfig { listen: local, certificate: files.certificate(), key: files.key() });
    let config = Config { listen: vec![local], threads: 1, connections, tls };
    let server = Server::start(&config, &responder).await.unwrap();
    Tiers { responder, server }
}

/// Connects as a client that trusts this certificate only.
async fn connect(tiers: &Tiers, trusted: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"dot".to_vec()];
    let stream = TcpStream::connect(tiers.server.tls_address().unwrap()).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("dns.example").unwrap(), stream).await
}

async fn ask(stream: &mut TlsStream<TcpStream>, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let exchange = async {
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).await?;
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        Ok(message)
    };
    timeout(PATIENCE, exchange).await.expect("a response, or an end")
}

const MANY: Bounds = Bounds { all: 100, each: 100 };

#[test]
fn d26_answers_over_tls_are_those_over_tcp() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let files = Files::new("same");
        let trusted = files.renew();
        let tiers = tiers(Some(&upstream), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        for (question, code, answers) in [
            (OWN, ResponseCode::NoError, 1),
            ("WEB.shop.svc.Cluster.Local AAAA", ResponseCode::NoError, 1),
            ("_http._tcp.web.shop.svc.cluster.local SRV", ResponseCode::NoError, 1),
            ("_db._tcp.pets.shop.svc.cluster.local SRV", ResponseCode::NoError, 2),
            ("1.0.96.10.in-addr.arpa PTR", ResponseCode::NoError, 1),
            ("many.shop.svc.cluster.local A", ResponseCode::NoError, 250),
            ("web.shop.svc.cluster.local TXT", ResponseCode::NoError, 0),
            ("no.shop.svc.cluster.local A", ResponseCode::NXDomain, 0),
            ("www.example.org A", ResponseCode::NoError, 1),
            ("outside.shop.svc.cluster.local A", ResponseCode::NoError, 2),
        ] {
            for edns in [false, true] {
                let mut asked_for = message(question);
                if edns {
                    asked_for.set_edns(Edns::new());
                }
                // With the same id: addresses take turns by it.
                let asked = asked_for.to_vec().unwrap();
                let over_tls = ask(&mut stream, &asked).await.unwrap();
                let read = Message::from_vec(&over_tls).unwrap();
                assert_eq!((read.metadata.response_code, read.answers.len()), (code, answers), "{question}");
                assert_eq!(over_tls, tiers.tcp(&asked).await, "{question}");
            }
        }
    });
}

#[test]
fn d26_messages_over_tls_that_can_not_be_read_are_answered_as_over_tcp() {
    run(async {
        let files = Files::new("odd");
        let trusted = files.renew();
        let tiers = tiers(None, &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        let good = query(OWN);
        // Half a question; an operation that is none; two questions.
        let (half, mut operation, mut two) = (good[..20].to_vec(), good.clone(), good.clone());
        operation[2] |= 0x10;
        two[5] = 2;
        two.extend_from_slice(&good[12..]);
        for odd in [half, operation, two] {
            assert_eq!(ask(&mut stream, &odd).await.unwrap(), tiers.tcp(&odd).await, "{odd:?}");
        }
        assert_eq!(ask(&mut stream, &good).await.unwrap(), tiers.tcp(&good).await, "and the connection goes on");
    });
}

#[test]
fn d26_connections_over_tls_take_the_places_of_those_over_tcp() {
    run(async {
        let files = Files::new("places");
        let trusted = files.renew();
        let tiers = tiers(None, &files, Bounds { all: 2, each: 2 }).await;
        let mut first = connect(&tiers, &trusted).await.unwrap();
        let mut second = connect(&tiers, &trusted).await.unwrap();
        ask(&mut first, &query(OWN)).await.unwrap();
        ask(&mut second, &query(OWN)).await.unwrap();
        tiers.tcp(&query(OWN)).await;
        let closed = timeout(PATIENCE, first.read_u8()).await.expect("the one that was idle longest is closed");
        assert!(closed.is_err());
        assert!(ask(&mut second, &query(OWN)).await.is_ok());
        assert_eq!(tiers.responder.stats.tcp_evicted.get(), 1);
    });
}

#[test]
fn d26_a_new_certificate_is_used_and_a_wrong_one_is_not() {
    run(async {
        let files = Files::new("renewed");
        let old = files.renew();
        let tiers = tiers(None, &files, MANY).await;
        let certificate = tiers.server.certificate().unwrap();
        assert!(!certificate.refresh().unwrap(), "nothing has changed");
        let new = files.renew();
        assert!(connect(&tiers, &old).await.is_ok());
        assert!(certificate.refresh().unwrap());
        assert!(connect(&tiers, &old).await.is_err());
        assert!(connect(&tiers, &new).await.is_ok());
        // A key that belongs to another certificate.
        let other = Files::new("other");
        other.renew();
        std::fs::copy(other.key(), files.key()).unwrap();
        assert!(certificate.refresh().unwrap_err().to_string().contains("the key that belongs to it"));
        std::fs::write(files.key(), "no key").unwrap();
        assert!(certificate.refresh().unwrap_err().to_string().contains("tls.key"));
        assert!(connect(&tiers, &new).await.is_ok(), "the one before stays");
    });
}
