//! How the API server is reached: its address and the credentials.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// The file in the run directory with the server's address, which `fairlead install` takes from kubelet's configuration.
const ADDRESS: &str = "apiserver";

/// How the API server is reached.
///
/// A pod has the address of the service `kubernetes`. The agent of a node must not use it: the service works when the
/// agent does. With a `run_dir` the address is, in this order, `server`, that of the kubeconfig, that in
/// `RUN_DIR/apiserver`; and it is an error when there is none. The credentials are the kubeconfig's or else those of the
/// service account, whose token is read again as it rotates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// The server, if somebody named it.
    pub server: Option<ServerUrl>,
    /// A kubeconfig.
    pub kubeconfig: Option<PathBuf>,
    /// Where addresses are kept, for the agent of a node.
    pub run_dir: Option<PathBuf>,
}

/// Why no request can be made. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The kubeconfig.
    #[error("the kubeconfig {path} can't be used: {source}; correct it, or --kubeconfig")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: kube::config::KubeconfigError,
    },
    /// Nothing at all.
    #[error("no API server is configured: {0}; run in a pod with a service account, or give --kubeconfig")]
    Infer(#[from] kube::config::InferConfigError),
    /// The service account.
    #[error(
        "the service account can't be used: {0}; the pod needs its token at /var/run/secrets/kubernetes.io/serviceaccount \
         (automountServiceAccountToken), or give --kubeconfig"
    )]
    ServiceAccount(#[from] kube::config::InClusterError),
    /// Nobody said where the server is.
    #[error(
        "the API server's address is not known: {path} can't be read ({source}); run `fairlead install` on the node, \
         which takes it from kubelet's configuration, or set apiServer (--api-server)"
    )]
    NoAddress {
        /// The file that should have it.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// The file with the address.
    #[error("{path} holds no address: {reason}; run `fairlead install` again, or set apiServer (--api-server)")]
    Address {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The client.
    #[error("can't create a client for the API server: {0}; correct its certificates")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// The client's configuration.
    pub(super) async fn config(&self) -> Result<Config, AccessError> {
        let Self { server, kubeconfig, run_dir } = self;
        let mut config = match (kubeconfig, run_dir) {
            (Some(path), _) => {
                let failed = |source| AccessError::Kubeconfig { path: path.clone(), source };
                let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)?
            }
            (None, None) => Config::infer().await?,
            (None, Some(_)) => Config::incluster_dns()?,
        };
        match (server, kubeconfig, run_dir) {
            (Some(server), _, _) => config.cluster_url = server.0.clone(),
            (None, None, Some(run_dir)) => {
                let path = run_dir.join(ADDRESS);
                let text = match std::fs::read_to_string(&path) {
                    Ok(text) => text,
                    Err(source) => return Err(AccessError::NoAddress { path, source }),
                };
                let url: Result<ServerUrl, String> = text.trim().parse();
                config.cluster_url = url.map_err(|reason| AccessError::Address { path, reason })?.0;
            }
            (None, _, _) => {}
        }
        Ok(config)
    }
}

/// The URL of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl(Uri);

impl FromStr for ServerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |reason: &str| format!("{text:?} is not the URL of a server: {reason}; write it as https://192.0.2.1:6443");
        let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| wrong(&error.to_string()))?;
        match uri.scheme_str() {
            Some("https" | "http") => {}
            _ => return Err(wrong("it must begin with https://")),
        }
        if uri.query().is_some() {
            return Err(wrong("it must end with the port"));
        }
        Ok(Self(uri))
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerUrl;

    #[test]
    fn addresses_of_servers_are_checked() {
        for good in
            ["https://192.0.2.1:6443/", "https://[fd00::1]:6443/", "https://api.example.com/", "http://localhost:8080/"]
        {
            assert_eq!(good.parse::<ServerUrl>().map(|url| url.to_string()).as_deref(), Ok(good));
        }
        for bad in ["192.0.2.1:6443", "ftp://a", "https://", "", "https://a b", "/tmp"] {
            assert!(bad.parse::<ServerUrl>().unwrap_err().contains("write it as https://192.0.2.1:6443"), "{bad}");
        }
    }
}
