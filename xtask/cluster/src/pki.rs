//! The cluster's certificates: one authority, and who it vouches for. They live as long as the cluster's directory.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

use crate::addresses::api_names;

/// A certificate and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// The cluster's authority.
pub(crate) struct Authority {
    /// Its certificate, as PEM: what `kube-root-ca.crt` holds.
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Where the control plane's files are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn new(cluster: &Path) -> Self {
        Self { directory: cluster.join("pki") }
    }

    /// One of `ca.crt`, `ca.key`, `apiserver.crt`, `apiserver.key`, `kubelet-client.crt`, `kubelet-client.key`, `sa.key`,
    /// `sa.pub`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key).context("can't make the cluster's authority")?.pem();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Somebody who calls the API server: the name is the user, the organization the group.
    pub(crate) fn client(&self, user: &str, group: &str) -> Result<Identity> {
        self.sign(user, group, &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The API server itself.
    fn server(&self) -> Result<Identity> {
        self.sign("kube-apiserver", "kubernetes", &api_names(), ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn sign(&self, name: &str, group: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> Result<Identity> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer).with_context(|| format!("can't sign for {name}"))?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Writes what the control plane reads.
    pub(crate) fn write(&self, files: &Files) -> Result<()> {
        let server = self.server()?;
        // What the API server is for kubelets: they ask it in turn what this user may do.
        let kubelets = self.client("kube-apiserver-kubelet-client", "system:masters")?;
        // It signs service accounts' tokens.
        let accounts = KeyPair::generate()?;
        fs::create_dir_all(&files.directory)?;
        fs::set_permissions(&files.directory, fs::Permissions::from_mode(0o700))?;
        for (name, text) in [
            ("ca.crt", &self.certificate),
            ("ca.key", &self.issuer.key().serialize_pem()),
            ("apiserver.crt", &server.certificate),
            ("apiserver.key", &server.key),
            ("kubelet-client.crt", &kubelets.certificate),
            ("kubelet-client.key", &kubelets.key),
            ("sa.key", &accounts.serialize_pem()),
            ("sa.pub", &accounts.public_key_pem()),
        ] {
            fs::write(files.path(name), text)?;
        }
        Ok(())
    }
}
