//! The control plane: how each of its programs is started.

use std::path::Path;

use crate::addresses::{API_PORT, NODE_MASKS, POD_CIDRS, SERVICE_CIDRS, router};
use crate::pki::Files;
use crate::service::Service;

/// The API server's name among the fabric's services.
pub(crate) const API_SERVER: &str = "kube-apiserver";
/// The user of the controller manager and of the scheduler, as the API server's own roles name them.
pub(crate) const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
pub(crate) const SCHEDULER: &str = "system:kube-scheduler";

const ETCD: &str = "http://127.0.0.1:2379";

/// The programs of a cluster in `home`; `program` gives a part's file.
pub(crate) fn services(home: &Path, program: &dyn Fn(&str) -> String) -> Vec<Service> {
    vec![etcd(home, program), api_server(home, program), controller_manager(home, program), scheduler(home, program)]
}

fn etcd(home: &Path, program: &dyn Fn(&str) -> String) -> Service {
    Service::new(
        "etcd",
        [
            program("etcd"),
            format!("--data-dir={}", home.join("etcd").display()),
            format!("--listen-client-urls={ETCD}"),
            format!("--advertise-client-urls={ETCD}"),
            "--listen-peer-urls=http://127.0.0.1:2380".to_owned(),
            // A cluster that does not outlive the machine needs nothing to be on its disk.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
        ],
    )
}

fn api_server(home: &Path, program: &dyn Fn(&str) -> String) -> Service {
    let pki = Files::new(home);
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.path(name).display());
    Service::new(
        API_SERVER,
        [
            program(API_SERVER),
            format!("--etcd-servers={ETCD}"),
            format!("--advertise-address={}", router(0).0),
            "--bind-address=::".to_owned(),
            format!("--secure-port={API_PORT}"),
            format!("--service-cluster-ip-range={}", SERVICE_CIDRS.join(",")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
            file("service-account-key-file", "sa.pub"),
            file("service-account-signing-key-file", "sa.key"),
            file("tls-cert-file", "apiserver.crt"),
            file("tls-private-key-file", "apiserver.key"),
            file("client-ca-file", "ca.crt"),
            file("kubelet-client-certificate", "kubelet-client.crt"),
            file("kubelet-client-key", "kubelet-client.key"),
            // Else it looks nodes' names up in the machine's DNS for logs and exec.
            "--kubelet-preferred-address-types=InternalIP,Hostname".to_owned(),
            "--authorization-mode=Node,RBAC".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            "--allow-privileged=true".to_owned(),
        ],
    )
}

fn controller_manager(home: &Path, program: &dyn Fn(&str) -> String) -> Service {
    let pki = Files::new(home);
    let file = |flag: &str, name: &str| format!("--{flag}={}", pki.path(name).display());
    let [v4, v6] = NODE_MASKS;
    Service::new(
        "kube-controller-manager",
        [
            program("kube-controller-manager"),
            format!("--kubeconfig={}", home.join("controller-manager.conf").display()),
            "--allocate-node-cidrs=true".to_owned(),
            format!("--cluster-cidr={}", POD_CIDRS.join(",")),
            format!("--service-cluster-ip-range={}", SERVICE_CIDRS.join(",")),
            format!("--node-cidr-mask-size-ipv4={v4}"),
            format!("--node-cidr-mask-size-ipv6={v6}"),
            "--use-service-account-credentials=true".to_owned(),
            file("service-account-private-key-file", "sa.key"),
            file("root-ca-file", "ca.crt"),
            file("cluster-signing-cert-file", "ca.crt"),
            file("cluster-signing-key-file", "ca.key"),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ],
    )
}

fn scheduler(home: &Path, program: &dyn Fn(&str) -> String) -> Service {
    Service::new(
        "kube-scheduler",
        [
            program("kube-scheduler"),
            format!("--kubeconfig={}", home.join("scheduler.conf").display()),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_server_says_its_real_address_and_serves_both_families() {
        let services = services(Path::new("/c"), &|name| format!("/bin/{name}"));
        let api = services.iter().find(|service| service.name == API_SERVER).unwrap();
        assert!(api.argv.contains(&"--advertise-address=172.18.0.1".to_owned()), "{:?}", api.argv);
        assert!(api.argv.contains(&"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112".to_owned()));
        assert_eq!(api.argv[0], "/bin/kube-apiserver");
    }
}
