//! The certificate that clients over TLS get, and its files.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

/// How often the files are looked at.
const PERIOD: Duration = Duration::from_secs(10);

/// A certificate and its key, as two files have them.
#[derive(Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    /// What the files say, in PEM.
    text: [Vec<u8>; 2],
    certified: Arc<CertifiedKey>,
}

/// Why a certificate can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read.
    #[error("can't read {path}: {source}: check --tls-cert and --tls-key, and the files' permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} can't be used: {source}; it must be PEM")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// They don't belong together, or there is no certificate.
    #[error("{certificate} and {key} can't be used: {source}: give a certificate and the key that belongs to it")]
    Unfit {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
        /// What is wrong with them.
        source: tokio_rustls::rustls::Error,
    },
}

impl Certificate {
    /// Reads a certificate, with those between it and its authority behind it, and its key, both in PEM.
    ///
    /// # Errors
    /// A file can't be read, or they can't be used together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let text = texts(certificate, key)?;
        let certified = Arc::new(parse(certificate, key, &text)?);
        let current = RwLock::new(Current { text, certified });
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again, and says whether they have changed. After an error the certificate before stays.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub fn refresh(&self) -> Result<bool, CertificateError> {
        let text = texts(&self.certificate, &self.key)?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).text == text {
            return Ok(false);
        }
        let certified = Arc::new(parse(&self.certificate, &self.key, &text)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { text, certified };
        Ok(true)
    }

    /// Reads the files again whenever they change, for ever.
    pub async fn follow(&self) {
        let mut wrong = None;
        loop {
            tokio::time::sleep(PERIOD).await;
            match self.refresh() {
                Ok(changed) => {
                    wrong = None;
                    if changed {
                        tracing::info!("TLS certificate reloaded");
                    }
                }
                Err(error) => {
                    let error = error.to_string();
                    if wrong.as_ref() != Some(&error) {
                        tracing::warn!(error, "can't reload the TLS certificate: keeping the previous one");
                        wrong = Some(error);
                    }
                }
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).certified))
    }
}

fn texts(certificate: &Path, key: &Path) -> Result<[Vec<u8>; 2], CertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| CertificateError::Unreadable { path: path.to_owned(), source })
    };
    Ok([read(certificate)?, read(key)?])
}

fn parse(certificate: &Path, key: &Path, [chain, secret]: &[Vec<u8>; 2]) -> Result<CertifiedKey, CertificateError> {
    let malformed = |path: &Path, source| CertificateError::Malformed { path: path.to_owned(), source };
    let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.map_err(|source| malformed(certificate, source))?;
    if chain.is_empty() {
        return Err(malformed(certificate, pem::Error::NoItemsFound));
    }
    let secret = PrivateKeyDer::from_pem_slice(secret).map_err(|source| malformed(key, source))?;
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(|source| CertificateError::Unfit {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}
