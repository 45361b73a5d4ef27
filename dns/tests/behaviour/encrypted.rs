//! DNS over TLS for clients: the answers of the other transports, and a certificate that can change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use fairlead_dns::Builder;
use fairlead_dns::crowd::Bounds;
use fairlead_dns::forward::Limits;
use fairlead_dns::full::Responder;
use fairlead_dns::server::{Config, Server, TlsConfig};
use fairlead_objects::{Event, Object, Protocol};
use h2::client::SendRequest;
use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use http::{Method, Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::client::{PATIENCE, Tiers, message, query, run};
use crate::elsewhere::Upstream;
use crate::fixture::{cluster, forwarder, of_site, responder, service, zone, zone_of};
use crate::sites::site;

pub(crate) const OWN: &str = "web.shop.svc.cluster.local A";

/// Files with a certificate and its key, which go when this does.
pub(crate) struct Files {
    folder: PathBuf,
}

impl Files {
    pub(crate) fn new(test: &str) -> Self {
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
    pub(crate) fn renew(&self) -> String {
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

/// A server that also serves over TLS and HTTPS, and forwards there.
async fn tiers(upstream: Option<&Upstream>, files: &Files, connections: Bounds) -> Tiers {
    let forwarder = upstream.and_then(|upstream| forwarder(&[upstream.address], Limits::default()));
    tiers_of(responder(zone(), forwarder), files, connections).await
}

pub(crate) async fn tiers_of(responder: Arc<Responder>, files: &Files, connections: Bounds) -> Tiers {
    let local = "127.0.0.1:0".parse().unwrap();
    let (certificate, key) = (files.certificate(), files.key());
    let tls = Some(TlsConfig { listen: Some(local), https: Some(local), certificate, key });
    let config = Config { listen: vec![local], threads: 1, connections, tls };
    let server = Server::start(&config, &responder).await.unwrap();
    Tiers { responder, server }
}

/// Connects as a client that trusts this certificate only.
pub(crate) async fn connect(tiers: &Tiers, trusted: &str) -> std::io::Result<TlsStream<TcpStream>> {
    connect_to(tiers.server.tls_address().unwrap(), trusted, b"dot").await
}

async fn connect_to(address: SocketAddr, trusted: &str, protocol: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
    // A client with little room sees how fast a server sends.
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(16 << 10)?;
    secured(socket.connect(address).await?, trusted, protocol).await
}

/// TLS over a connection, for a client that trusts this certificate only.
pub(crate) async fn secured(
    stream: TcpStream,
    trusted: &str,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("dns.example").unwrap(), stream).await
}

pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>, query: &[u8]) -> std::io::Result<Vec<u8>> {
    let exchange = async {
        stream.write_all(&[&(query.len() as u16).to_be_bytes(), query].concat()).await?;
        let mut message = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut message).await?;
        Ok(message)
    };
    timeout(PATIENCE, exchange).await.expect("a response, or an end")
}

pub(crate) const MANY: Bounds = Bounds { all: 100, each: 100 };

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

/// A cluster whose zone is more than can wait for a client: 9 000 Services with two ports.
pub(crate) fn large() -> Arc<Responder> {
    let ports = [("http", Protocol::Tcp, 80), ("metrics", Protocol::Tcp, 9100)];
    let many = (0..9_000_u32).map(|number| {
        let [_, a, b, c] = (0x0a60_0000 + number).to_be_bytes();
        Object::Service(service("shop", &format!("service-number-{number}"), &[&format!("10.{a}.{b}.{c}")], &ports))
    });
    let events = cluster().into_iter().chain(many).map(Event::Applied).chain(Builder::KINDS.map(Event::Synced));
    of_site(zone_of(events), site(". {\nkubernetes cluster.local\ntransfer {\nto *\n}\n}"))
}

/// Everything that comes of a zone, and how many messages it takes. The client takes its time for each.
pub(crate) async fn whole(stream: &mut TlsStream<TcpStream>, pause: Duration) -> (Vec<Record>, usize) {
    let (mut records, mut messages) = (Vec::new(), 0);
    let all = async {
        while records.len() < 2 || records.last().is_none_or(|last: &Record| last.record_type() != RecordType::SOA) {
            let mut message = vec![0; usize::from(stream.read_u16().await.unwrap())];
            stream.read_exact(&mut message).await.unwrap();
            records.extend(Message::from_vec(&message).unwrap().answers);
            messages += 1;
            tokio::time::sleep(pause).await;
        }
    };
    timeout(PATIENCE * 2, all).await.expect("a whole zone");
    (records, messages)
}

#[test]
fn d43_a_large_zone_goes_over_tls_whole_and_the_connection_goes_on() {
    run(async {
        let files = Files::new("transfer");
        let trusted = files.renew();
        let tiers = tiers_of(large(), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        let asked = query("cluster.local AXFR");
        stream.write_all(&[&(asked.len() as u16).to_be_bytes(), &asked[..]].concat()).await.unwrap();
        let (records, messages) = whole(&mut stream, Duration::ZERO).await;
        assert!(messages > 64, "more than hickory-server keeps for a client: {messages}");
        let is_one = |record: &&Record| {
            record.record_type() == RecordType::A && record.name.to_string().starts_with("service-number-")
        };
        assert_eq!(records.iter().filter(is_one).count(), 9_000);
        assert_eq!(records.first(), records.last());
        assert_eq!(ask(&mut stream, &query(OWN)).await.unwrap(), tiers.tcp(&query(OWN)).await);
    });
}

#[test]
fn d43_who_may_not_have_a_zone_gets_none_over_tls_and_nobody_over_https() {
    run(async {
        let files = Files::new("refused");
        let trusted = files.renew();
        let corefile = ". {\nkubernetes cluster.local\ntransfer cluster.local {\nto 192.0.2.1\n}\n}";
        let tiers = tiers_of(of_site(zone(), site(corefile)), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        let said = Message::from_vec(&ask(&mut stream, &query("cluster.local AXFR")).await.unwrap()).unwrap();
        assert_eq!((said.metadata.response_code, said.answers.len()), (ResponseCode::Refused, 0));
        let open = ". {\nkubernetes cluster.local\ntransfer {\nto *\n}\n}";
        tiers.responder.set_site(site(open));
        let mut client = Https::connect(&tiers, &trusted).await;
        let (_, said) = client.post(&query("cluster.local AXFR")).await;
        assert_eq!(Message::from_vec(&said).unwrap().metadata.response_code, ResponseCode::Refused);
    });
}

#[test]
fn d26_queries_of_one_connection_over_tls_are_answered_as_they_get_ready() {
    run(async {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let files = Files::new("ready");
        let trusted = files.renew();
        let forwarder = forwarder(&[silent.local_addr().unwrap()], Limits::default());
        let tiers = tiers_of(responder(zone(), forwarder), &files, MANY).await;
        let mut stream = connect(&tiers, &trusted).await.unwrap();
        let slow = query("www.example.org A");
        stream.write_all(&[&(slow.len() as u16).to_be_bytes(), &slow[..]].concat()).await.unwrap();
        let own = ask(&mut stream, &query(OWN)).await.unwrap();
        assert_eq!(own[..2], query(OWN)[..2], "the one that nobody has to be asked for comes first");
    });
}

/// A client over HTTPS.
pub(crate) struct Https {
    pub(crate) requests: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

impl Https {
    pub(crate) async fn connect(tiers: &Tiers, trusted: &str) -> Self {
        let stream = connect_to(tiers.server.https_address().unwrap(), trusted, b"h2").await.unwrap();
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        Self { requests, connection: tokio::spawn(connection) }
    }

    /// Sends a request, and returns the status, how long the response may be kept, and what is in it.
    async fn send(&mut self, request: Request<()>, body: &[u8]) -> (StatusCode, Option<String>, Vec<u8>) {
        let exchange = async {
            self.requests = self.requests.clone().ready().await.unwrap();
            let (response, mut stream) = self.requests.send_request(request, body.is_empty()).unwrap();
            if !body.is_empty() {
                stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
            }
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut bytes = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                bytes.extend_from_slice(&part);
            }
            let kept = head.headers.get("cache-control").map(|value| value.to_str().unwrap().to_owned());
            (head.status, kept, bytes)
        };
        timeout(PATIENCE, exchange).await.expect("a response")
    }

    pub(crate) async fn post(&mut self, message: &[u8]) -> (Option<String>, Vec<u8>) {
        let (status, kept, bytes) = self.send(request(Method::POST, "/dns-query"), message).await;
        assert_eq!(status, StatusCode::OK);
        (kept, bytes)
    }
}

pub(crate) fn request(method: Method, path: &str) -> Request<()> {
    let request = Request::builder().method(method).uri(format!("https://dns.example{path}"));
    request.header("content-type", "application/dns-message").header("accept", "*/*").body(()).unwrap()
}

#[test]
fn d26_answers_over_https_are_those_over_tcp() {
    run(async {
        let upstream = Upstream::of("192.0.2.7").await;
        let files = Files::new("https");
        let trusted = files.renew();
        let tiers = tiers(Some(&upstream), &files, MANY).await;
        let mut client = Https::connect(&tiers, &trusted).await;
        for question in [
            OWN,
            "many.shop.svc.cluster.local A",
            "no.shop.svc.cluster.local A",
            "www.example.org A",
            "outside.shop.svc.cluster.local A",
        ] {
            let asked = query(question);
            let wanted = tiers.tcp(&asked).await;
            let (kept, said) = client.post(&asked).await;
            assert_eq!(said, wanted, "{question}");
            let get = format!("/dns-query?dns={}", URL_SAFE_NO_PAD.encode(&asked));
            let (status, same, said) = client.send(request(Method::GET, &get), &[]).await;
            assert_eq!((status, said), (StatusCode::OK, wanted), "{question}");
            let seconds = kept.as_deref().and_then(|kept| kept.strip_prefix("max-age=")?.parse::<u32>().ok());
            assert!(seconds.is_some() && kept == same, "{question}: {kept:?}");
        }
        assert_eq!(client.post(&query(OWN)).await.0.as_deref(), Some("max-age=5"));
        // Half a question.
        let half = &query(OWN)[..20];
        assert_eq!(client.post(half).await.1, tiers.tcp(half).await);
    });
}

#[test]
fn d26_requests_over_https_that_are_no_queries_get_their_status() {
    run(async {
        let files = Files::new("status");
        let trusted = files.renew();
        let tiers = tiers(None, &files, MANY).await;
        let mut client = Https::connect(&tiers, &trusted).await;
        let asked = query(OWN);
        let text = Request::builder().method(Method::POST).uri("https://dns.example/dns-query").body(()).unwrap();
        for (request, body, status) in [
            (request(Method::POST, "/"), &asked[..], StatusCode::NOT_FOUND),
            (request(Method::GET, "/dns-query"), &[][..], StatusCode::BAD_REQUEST),
            (request(Method::GET, "/dns-query?dns=A+AA"), &[][..], StatusCode::BAD_REQUEST),
            (request(Method::PUT, "/dns-query"), &asked[..], StatusCode::METHOD_NOT_ALLOWED),
            (text, &asked[..], StatusCode::UNSUPPORTED_MEDIA_TYPE),
            (request(Method::POST, "/dns-query"), &[7; 5000][..], StatusCode::PAYLOAD_TOO_LARGE),
        ] {
            let what = format!("{request:?}");
            assert_eq!(client.send(request, body).await.0, status, "{what}");
        }
        assert_eq!(client.post(&asked).await.1, tiers.tcp(&asked).await, "and the connection goes on");
    });
}
