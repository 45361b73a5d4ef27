//! DNS over TLS to upstream servers (RFC 7858, RFC 8310 strict profile).

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The port of DNS over TLS.
pub const PORT: u16 = 853;

/// Whose certificates are believed. Cheap to clone.
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

/// How a server proves who it is.
#[derive(Clone)]
pub struct Tls {
    trust: Trust,
    name: ServerName<'static>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.trust.0, &other.trust.0) && self.name == other.name
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

/// Why TLS can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The name is none.
    #[error("{0:?} is not a server name: write the name in the server's certificate, such as dns.example")]
    Name(String),
    /// A file has no certificates that can be read.
    #[error("{file} has no readable certificates: {reason}; it must be PEM")]
    File {
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There are none on this machine.
    #[error("this machine has no certificates of certificate authorities (CAs): name a file with --tls-ca")]
    NoRoots,
    /// They are not to be used.
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] tokio_rustls::rustls::Error),
}

impl Trust {
    /// Certificates of these authorities: those in a file, whose text this is, or those that the machine knows.
    ///
    /// # Errors
    /// There are no authorities.
    pub fn new(authorities: Option<(&Path, &str)>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some((file, text)) => {
                let wrong = |reason: String| TlsError::File { file: file.display().to_string(), reason };
                for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                    let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
                    roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
                }
                if roots.is_empty() {
                    return Err(wrong("there is none".to_owned()));
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                if roots.is_empty() {
                    return Err(TlsError::NoRoots);
                }
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// A server of this name.
    ///
    /// # Errors
    /// The name is none.
    pub fn server(&self, name: &str) -> Result<Tls, TlsError> {
        let server = ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        Ok(Tls { trust: self.clone(), name: server })
    }
}

impl Tls {
    pub(super) async fn connect(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        TlsConnector::from(Arc::clone(&self.trust.0)).connect(self.name.clone(), stream).await
    }
}
