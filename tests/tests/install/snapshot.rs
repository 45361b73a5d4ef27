//! What can be seen of Fairlead on a node, as text.

use std::collections::BTreeMap;

use fairlead_tests::{Node, Probes};

/// What a node's kernel and files say, by what was asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<&'static str, String>);

/// Commands whose output has to be the same before and after.
const ASKED: [(&str, &str); 9] = [
    ("links", "ip -o link show | sed -E 's/ qlen [0-9]+//'"),
    ("addresses", "ip -o addr show | sed -E 's/(valid|preferred)_lft [^ ]+//g'"),
    ("routes", "ip -4 route show table all; ip -6 route show table all"),
    ("rules", "ip -4 rule; ip -6 rule"),
    // What the kernel learns by itself, and how fresh it is, changes all the time.
    ("neighbours", "ip neigh show nud permanent; ip neigh show | grep -E 'managed|extern_learn' || true"),
    ("pins", "find /sys/fs/bpf"),
    ("programs on links", "for link in /sys/class/net/*; do tc filter show dev ${link##*/} ingress; done"),
    (
        "settings",
        "sysctl -a --pattern '^net[.](ipv4|ipv6)[.]' 2>/dev/null | grep -vE 'fib_multipath_hash_seed|tcp_fastopen_key|stable_secret|max_dst_opts|nf_conntrack' | sort",
    ),
    ("files", "find /etc/cni /opt/cni /run/fairlead /etc/kubernetes 2>/dev/null | sort"),
];

impl Snapshot {
    pub(crate) fn of(node: &Node) -> Self {
        Self(ASKED.iter().map(|(what, command)| (*what, node.must_run(&["sh", "-c", command]))).collect())
    }

    /// Fails with the lines that differ.
    #[track_caller]
    pub(crate) fn assert_same(&self, after: &Self) {
        for (what, before) in &self.0 {
            let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.0[what].lines().collect());
            let gone: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
            let new: Vec<_> = after.iter().filter(|line| !before.contains(line)).collect();
            assert!(gone.is_empty() && new.is_empty(), "{what} differ: gone {gone:#?}, new {new:#?}");
        }
    }
}
