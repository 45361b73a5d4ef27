//! Programs that are the machine's own: from its packages, where it has apt.

use anyhow::{Context, Result, bail};

use crate::{paths, run};

/// What nodes of clusters and labs use besides their own programs, and the packages of Debian that have it.
const CLUSTER: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("ping", "iputils-ping"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("nsenter", "util-linux"),
    ("pgrep", "procps"),
];

/// What asks DNS servers many questions.
const DNSPERF: [(&str, &str); 1] = [("dnsperf", "dnsperf")];

/// Whether it is there.
pub(super) fn dnsperf_present() -> bool {
    missing(&DNSPERF).is_empty()
}

/// Installs it.
pub(super) fn install_dnsperf() -> Result<()> {
    install(&missing(&DNSPERF))
}

/// Whether the cluster's are there.
pub(super) fn cluster_present() -> bool {
    missing(&CLUSTER).is_empty()
}

/// Installs what is missing of them.
pub(super) fn install_cluster() -> Result<()> {
    install(&missing(&CLUSTER))
}

/// The packages of programs that are not there.
fn missing(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs.iter().filter(|(program, _)| paths::which(program).is_none()).map(|(_, package)| *package).collect()
}

/// Installs packages of the machine's own distribution.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let by_hand = format!("apt-get update && apt-get install --no-install-recommends {list}");
    if paths::which("apt-get").is_none() {
        bail!("this machine has no apt: install what Debian has in {list} (there: `{by_hand}`)");
    }
    let apt = |words: &[&str]| -> Result<()> {
        run::say(format!("apt-get {}", words.join(" ")));
        run::run(run::as_root("apt-get")?.args(words).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    let mut words = vec!["-qq", "-y", "install", "--no-install-recommends"];
    words.extend(packages);
    // Lists may be old or absent, as in a fresh container; fetching them every time would be slow.
    apt(&words)
        .or_else(|_| apt(&["-qq", "update"]).and_then(|()| apt(&words)))
        .with_context(|| format!("as root: `{by_hand}`"))
}
