//! The Go programs that a cluster is made of, and the modules that pin them (`tests/cluster/*/go.mod`; of other versions of
//! Kubernetes `tests/cluster/versions/*/go.mod`).

/// A module of `tests/cluster`: one set of dependencies that agree with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Module {
    /// Kubernetes itself, and upstream's tests of it.
    Kubernetes,
    /// The store.
    Etcd,
    /// The container runtime.
    Containerd,
    /// The reference network plugins.
    Plugins,
    /// The DNS server that Fairlead stands in for.
    Coredns,
    /// Upstream's conformance tests of ClusterNetworkPolicy.
    NetworkPolicyApi,
}

/// One program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Part {
    /// The module it is built in.
    pub module: Module,
    /// The name of its file.
    pub name: &'static str,
    /// Its package.
    pub package: &'static str,
}

const fn part(module: Module, name: &'static str, package: &'static str) -> Part {
    Part { module, name, package }
}

/// What every cluster needs.
pub const CLUSTER: &[Part] = &[
    part(Module::Etcd, "etcd", "go.etcd.io/etcd/server/v3"),
    part(Module::Containerd, "containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    part(
        Module::Containerd,
        "containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
    ),
    part(Module::Containerd, "ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
    part(Module::Kubernetes, "kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
    part(Module::Kubernetes, "kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    part(Module::Kubernetes, "kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    part(Module::Kubernetes, "kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    part(Module::Kubernetes, "kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    part(Module::Plugins, "loopback", "github.com/containernetworking/plugins/plugins/main/loopback"),
    part(Module::Plugins, "portmap", "github.com/containernetworking/plugins/plugins/meta/portmap"),
    part(Module::Plugins, "tuning", "github.com/containernetworking/plugins/plugins/meta/tuning"),
];

/// What makes a control plane in pods.
pub const KUBEADM: &[Part] = &[part(Module::Kubernetes, "kubeadm", "k8s.io/kubernetes/cmd/kubeadm")];

/// The network that Fairlead is compared with.
pub const KUBE_PROXY: &[Part] = &[
    part(Module::Kubernetes, "kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    part(Module::Plugins, "bridge", "github.com/containernetworking/plugins/plugins/main/bridge"),
    part(Module::Plugins, "host-local", "github.com/containernetworking/plugins/plugins/ipam/host-local"),
    part(Module::Coredns, "coredns", "github.com/coredns/coredns"),
];

/// What upstream's tests run: in pods, and around the cluster.
pub const E2E: &[Part] = &[
    part(Module::Kubernetes, "agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    part(Module::Kubernetes, "ginkgo", "github.com/onsi/ginkgo/v2/ginkgo"),
    part(Module::Kubernetes, TESTS, "k8s.io/kubernetes/test/e2e"),
    part(Module::Kubernetes, "regression-issue-74839", "k8s.io/kubernetes/test/images/regression-issue-74839"),
    // It stands in for the DNS servers that some tests put into pods.
    part(Module::Coredns, "coredns", "github.com/coredns/coredns"),
];

/// Upstream's conformance tests of ClusterNetworkPolicy, and what runs in their pods.
pub const POLICY_TESTS: &[Part] = &[
    part(Module::NetworkPolicyApi, "conformance.test", "sigs.k8s.io/network-policy-api/conformance"),
    part(Module::Kubernetes, "agnhost", "k8s.io/kubernetes/test/images/agnhost"),
    part(Module::Kubernetes, TESTS, "k8s.io/kubernetes/test/e2e"),
];

/// The part that knows the names of upstream's images.
pub(crate) const TESTS: &str = "e2e.test";

impl Part {
    /// Whether it is a test binary.
    pub(crate) fn is_test(&self) -> bool {
        self.name.ends_with(".test")
    }
}

impl Module {
    /// Its folder below `tests/cluster`.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Etcd => "etcd",
            Self::Containerd => "containerd",
            Self::Plugins => "plugins",
            Self::Coredns => "coredns",
            Self::NetworkPolicyApi => "network-policy-api",
        }
    }

    /// What `go build` is told besides the packages; `version` is that of the module's main requirement.
    pub(crate) fn flags(self, version: &str) -> Vec<String> {
        let mut symbols = "-s -w".to_owned();
        if self == Self::Kubernetes {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
                // Else clients are told v0.0.0, and compare.
                symbols += &format!(
                    " -X {package}.gitVersion={version} -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
                );
            }
        }
        let mut flags = vec!["-trimpath".to_owned(), "-ldflags".to_owned(), symbols];
        if self == Self::Containerd {
            flags.extend(["-tags".to_owned(), "no_btrfs".to_owned()]);
        }
        flags
    }

    /// The requirement that gives the module's programs their version.
    pub(crate) fn requirement(self) -> &'static str {
        match self {
            Self::Kubernetes => "k8s.io/kubernetes",
            Self::Etcd => "go.etcd.io/etcd/server/v3",
            Self::Containerd => "github.com/containerd/containerd/v2",
            Self::Plugins => "github.com/containernetworking/plugins",
            Self::Coredns => "github.com/coredns/coredns",
            Self::NetworkPolicyApi => "sigs.k8s.io/network-policy-api",
        }
    }
}

/// The version of a requirement in the text of a go.mod.
pub(crate) fn version(go_mod: &str, requirement: &str) -> Option<String> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().trim_start_matches("require ").trim_start();
        let version = line.strip_prefix(requirement)?.strip_prefix(' ')?.split_whitespace().next()?;
        version.starts_with('v').then(|| version.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_that_of_the_whole_name() {
        let text = "module x\n\nrequire k8s.io/kubernetes v1.37.2\n\nrequire (\n\tk8s.io/kubernetes-x v9.0.0 // indirect\n\
                    \tgithub.com/coredns/coredns v1.15.0 // indirect\n)\nreplace k8s.io/api => k8s.io/api v0.37.2\n";
        assert_eq!(version(text, "k8s.io/kubernetes").as_deref(), Some("v1.37.2"));
        assert_eq!(version(text, "github.com/coredns/coredns").as_deref(), Some("v1.15.0"));
        assert_eq!(version(text, "k8s.io/api"), None);
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = Module::Kubernetes.flags("v1.37.2");
        assert!(flags[2].contains("component-base/version.gitVersion=v1.37.2"), "{flags:?}");
        assert!(flags[2].contains("component-base/version.gitMinor=37"), "{flags:?}");
        assert_eq!(Module::Etcd.flags("v3.6.16"), ["-trimpath", "-ldflags", "-s -w"]);
    }
}
