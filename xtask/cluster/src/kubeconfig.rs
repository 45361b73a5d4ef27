//! Files that say where the API server is and who calls it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::addresses::api_url;
use crate::pki::{Authority, Identity};

/// A kubeconfig with everything in it. It is in block style, one key a line, as kubeadm writes its own.
pub(crate) fn kubeconfig(authority: &Authority, identity: &Identity, user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster:
    certificate-authority-data: {}
    server: {}
contexts:
- name: {user}@kubernetes
  context:
    cluster: kubernetes
    user: {user}
current-context: {user}@kubernetes
preferences: {{}}
users:
- name: {user}
  user:
    client-certificate-data: {}
    client-key-data: {}
",
        STANDARD.encode(&authority.certificate),
        api_url(),
        STANDARD.encode(&identity.certificate),
        STANDARD.encode(&identity.key),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kubeconfig_names_the_real_address_and_holds_the_keys() {
        let authority = Authority::new().unwrap();
        let identity = authority.client("system:node:node-1", "system:nodes").unwrap();
        let text = kubeconfig(&authority, &identity, "system:node:node-1");
        assert!(text.contains("\n    server: https://172.18.0.1:6443\n"), "{text}");
        let line = text.lines().find_map(|line| line.trim().strip_prefix("client-key-data: ")).unwrap();
        assert_eq!(STANDARD.decode(line).unwrap(), identity.key.as_bytes());
    }
}
