//! The API server's address, from the kubeconfig of the node's kubelet.
//!
//! The address of the `kubernetes` Service is of no use to the agent that makes Services work. Kubelet has the real one,
//! and it alone is taken from its file: the long-lived agent needs no access to kubelet's credentials.

use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Why there is no address. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file is not there, or not for us.
    #[error(
        "kubelet's kubeconfig {path} can't be read: {source}; name another file with --kubelet-kubeconfig (k3s: \
         /var/lib/rancher/k3s/agent/kubelet.kubeconfig), or set `apiServer` to the API server's URL, as seen from this node"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// It says nothing that helps.
    #[error(
        "no API server address in kubelet's kubeconfig {path}: {reason}; set `apiServer` to the API server's URL, as seen from \
         this node"
    )]
    Useless {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// As much of a kubeconfig as says where the API server is (staging/src/k8s.io/client-go/tools/clientcmd/api/v1).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
}

/// An entry: its content is under a key that says what it is.
#[derive(Debug, Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster")]
    content: T,
}

#[derive(Debug, Deserialize)]
struct Context {
    cluster: String,
}

#[derive(Debug, Deserialize)]
struct Cluster {
    server: String,
}

/// The API server's URL that a kubeconfig's current context leads to.
///
/// # Errors
/// The file can't be read, or leads to none.
pub fn api_server(path: &Path) -> Result<String, KubeconfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| KubeconfigError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|reason| KubeconfigError::Useless { path: path.to_owned(), reason })
}

fn parse(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("not a kubeconfig: the file is empty".to_owned());
    }
    // What is around an error may be a key.
    let options = serde_saphyr::options! { with_snippet: false };
    let Kubeconfig { current_context, contexts, clusters } = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| format!("not a kubeconfig: {}", error.without_snippet()))?;
    let context = contexts
        .iter()
        .find(|context| context.name == current_context)
        .ok_or_else(|| format!("its current-context {current_context:?} is not among its contexts"))?;
    let wanted = &context.content.cluster;
    let cluster = clusters.iter().find(|cluster| cluster.name == *wanted).ok_or_else(|| {
        format!("the cluster {wanted:?} of its context {current_context:?} is not among its clusters")
    })?;
    url(&cluster.content.server)
}

/// Checks what is to be a server's URL.
///
/// # Errors
/// What it should look like.
pub fn url(text: &str) -> Result<String, String> {
    let text = text.trim().trim_end_matches('/');
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or_default();
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() || host.starts_with(':') || host.contains(char::is_whitespace) {
        return Err(format!("{text:?} is not the URL of a server; expected, for example, https://192.0.2.1:6443"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kubeadm writes; kind and minikube have it from there.
    const KUBEADM: &str = "apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tLS1CRUdJTg==
    server: https://control-plane.minikube.internal:8443
  name: mk
contexts:
- context: {cluster: mk, user: \"system:node:m01\"}
  name: system:node:m01@mk
current-context: system:node:m01@mk
kind: Config
preferences: {}
users:
- name: system:node:m01
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
";

    #[test]
    fn the_address_is_that_of_the_current_context() {
        assert_eq!(parse(KUBEADM).unwrap(), "https://control-plane.minikube.internal:8443");
        let two = "{clusters: [{name: a, cluster: {server: 'https://a:1/'}}, {name: b, cluster: {server: 'https://[fd00::1]:6443'}}],
                    contexts: [{name: x, context: {cluster: b}}, {name: y, context: {cluster: a}}], current-context: x}";
        assert_eq!(parse(two).unwrap(), "https://[fd00::1]:6443");
        assert_eq!(parse(&two.replace("current-context: x", "current-context: y")).unwrap(), "https://a:1");
    }

    #[test]
    fn what_leads_nowhere_is_named() {
        let cases = [
            ("", "not a kubeconfig"),
            ("{{{", "not a kubeconfig"),
            ("{contexts: []}", "current-context \"\""),
            ("{current-context: x, contexts: [{name: x, context: {cluster: c}}]}", "the cluster \"c\""),
            (&KUBEADM.replace("https://control-plane.minikube.internal:8443", "':8443'"), "https://192.0.2.1:6443"),
            (&KUBEADM.replace("    server: https://control-plane.minikube.internal:8443\n", ""), "server"),
        ];
        for (text, expected) in cases {
            let reason = parse(text).unwrap_err();
            assert!(reason.contains(expected), "{text}: {reason}");
        }
        let error = api_server(Path::new("/nonexistent/kubelet.conf")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/kubelet.conf") && error.contains("`apiServer`"), "{error}");
    }
}
