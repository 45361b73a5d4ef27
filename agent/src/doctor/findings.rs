//! From facts to findings.

use std::fmt::Write;

use serde::Serialize;

use super::facts::{Agent, ApiServer, Cni, Disk, Facts, Kernel, NetworkManager, Networkd, Proxy, UplinkFacts};

/// The oldest kernel that is tested.
const OLDEST: (u32, u32) = (6, 1);

/// Below this a directory counts as full, in bytes.
const FULL: u64 = 1 << 20;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Fairlead can't work on this node so.
    Blocks,
    /// It works, with harm or danger.
    Hinders,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do, as commands where there are some.
    pub remedy: String,
}

fn blocks(what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Blocks, what: what.into(), why, remedy: remedy.into() }
}

fn hinders(what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Hinders, what: what.into(), why, remedy: remedy.into() }
}

/// What is not as it should be, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let Facts {
        kernel: kernel_facts,
        bpffs,
        cgroup,
        proxy,
        forward_drop,
        cni: cni_facts,
        uplinks: uplink_facts,
        pods,
        settings,
        no_ipv6,
        network_manager,
        networkd,
        api_server,
        disks,
        agent: agent_facts,
        unseen: _,
    } = facts;
    let mut found = kernel(kernel_facts);
    if let Some((path, false)) = bpffs {
        let (path, why) =
            (path.display(), "maps and programs are pinned there, so that traffic flows without an agent");
        found.push(blocks(
            format!("no bpf file system is mounted at {path}"),
            why,
            format!("fairlead install, or: mount -t bpf bpf {path}"),
        ));
    }
    if let Some(text) = cgroup {
        found.push(blocks(
            "the socket hooks have no place".to_owned(),
            "processes of the node reach services by them alone",
            text.clone(),
        ));
    }
    found.extend(kube_proxy(proxy));
    if !forward_drop.is_empty() {
        found.push(hinders(
            format!("the firewall drops what the node forwards ({}), as docker makes it", forward_drop.join(", ")),
            "what pods send to the outside is forwarded by the node's own stack",
            "iptables -I FORWARD -i fl+ -j ACCEPT; iptables -I FORWARD -o fl+ -j ACCEPT (and the same with ip6tables); \
             with docker, in the chain DOCKER-USER, or \"ip-forward-no-drop\": true in /etc/docker/daemon.json",
        ));
    }
    found.extend(cni(cni_facts));
    found.extend(uplinks(uplink_facts, pods));
    if !settings.is_empty() {
        found.push(hinders(
            format!("not as a forwarding node needs it: {}", settings.join(", ")),
            "what the node does not forward does not leave its pods",
            "fairlead install sets it, and the agent while it runs; if it is set back, correct the file that does: \
             grep -r forward /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d",
        ));
    }
    if *no_ipv6 {
        found.push(hinders(
            "IPv6 is switched off (net.ipv6.conf.all.disable_ipv6 = 1)",
            "pods get an address of each family that their node has a range of",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0, or give the cluster ranges of IPv4 alone",
        ));
    }
    found.extend(managers(network_manager.as_ref(), networkd.as_ref()));
    found.extend(api_server.as_ref().and_then(api));
    found.extend(disks.iter().filter_map(disk));
    found.extend(agent_facts.iter().flat_map(agent));
    found.sort_by_key(|finding| finding.severity);
    found
}

fn kernel(kernel: &Kernel) -> Vec<Finding> {
    let Kernel { release, version, btf, jit, lacks, refuses } = kernel;
    let mut found = Vec::new();
    if version.is_some_and(|version| version < OLDEST) {
        found.push(blocks(
            format!("Linux {release}"),
            "programs use what older kernels do not have",
            format!("use a kernel of {}.{} or newer", OLDEST.0, OLDEST.1),
        ));
    }
    if !lacks.is_empty() {
        found.push(blocks(
            format!("the kernel lacks {}", lacks.join(", ")),
            "programs can't be loaded without",
            "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS, as \
             distributions have it",
        ));
    }
    if let Some(why) = refuses {
        found.push(blocks(
            format!("the kernel refuses eBPF: {why}"),
            "everything that happens to packets is done by eBPF programs",
            "run as root with CAP_BPF and CAP_NET_ADMIN; a kernel in lockdown mode allows none (see \
             /sys/kernel/security/lockdown)",
        ));
    }
    if *btf == Some(false) {
        found.push(hinders(
            "the kernel does not describe its types (/sys/kernel/btf/vmlinux)",
            "sockets remember their service by it",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, as distributions have it",
        ));
    }
    if *jit == Some(false) {
        found.push(hinders(
            "programs are interpreted (net.core.bpf_jit_enable = 0)",
            "every packet takes several times as long",
            "sysctl -w net.core.bpf_jit_enable=1",
        ));
    }
    found
}

/// Whether kube-proxy is here, or was. The agent asks this too.
#[must_use]
pub fn kube_proxy(proxy: &Proxy) -> Option<Finding> {
    let Proxy { processes, mode, rules, ipvs } = proxy;
    let mut seen = String::new();
    if let [first, ..] = rules.as_slice() {
        let _infallible = write!(seen, "{} of its tables and chains, as {first}", rules.len());
    }
    if *ipvs {
        seen += if seen.is_empty() { "" } else { ", " };
        seen += "the device kube-ipvs0";
    }
    if !processes.is_empty() || mode.is_some() {
        let mode = mode.as_ref().map(|mode| format!(" in mode {mode}")).unwrap_or_default();
        let rules = if seen.is_empty() { seen } else { format!(", with {seen}") };
        return Some(hinders(
            format!("kube-proxy still runs{mode}{rules}"),
            "both make services work, and each drops or translates what the other does not know; Fairlead leaves \
             kube-proxy's rules alone",
            "kubectl -n kube-system delete daemonset kube-proxy; then remove what it left: kube-proxy --cleanup",
        ));
    }
    (!seen.is_empty()).then(|| {
        hinders(
            format!("kube-proxy is gone and left {seen}"),
            "its rules translate service addresses to backends that are no more, and drop packets",
            "kube-proxy --cleanup; or: nft delete table ip kube-proxy; nft delete table ip6 kube-proxy; \
             iptables-save | grep -v KUBE- | iptables-restore; ip link delete kube-ipvs0; or start the node anew",
        )
    })
}

fn cni(cni: &Cni) -> Vec<Finding> {
    let Cni { directory, own, files, plugin, plugin_ok } = cni;
    let (directory, plugin) = (directory.display(), plugin.display());
    let mut found = Vec::new();
    let earlier: Vec<&str> = files.iter().map(String::as_str).take_while(|name| *name < own.as_str()).collect();
    if !earlier.is_empty() {
        found.push(blocks(
            format!("another CNI configuration comes first in {directory}: {}", earlier.join(", ")),
            "the container runtime takes the first by name, so pods are given to that network",
            format!("remove the other network, then: rm {directory}/{}", earlier.join(&format!(" {directory}/"))),
        ));
    }
    if files.contains(own) && !plugin_ok {
        found.push(blocks(
            format!("{plugin} is missing or can't be executed"),
            "the container runtime executes it for every pod",
            "fairlead install; the file system must not be mounted noexec",
        ));
    }
    found
}

fn uplinks(uplinks: &[UplinkFacts], pods: &[(String, u32)]) -> Vec<Finding> {
    let mut found = Vec::new();
    if uplinks.is_empty() {
        found.push(blocks(
            "no interface leads out of the node",
            "other nodes and the world are reached by one with a default route, or an address of the Node object",
            "name it: `uplinks` in the settings, or --uplink",
        ));
    }
    let mtus: Vec<String> = uplinks.iter().map(|uplink| format!("{} {}", uplink.name, uplink.mtu)).collect();
    let smallest = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(u32::MAX);
    if uplinks.iter().any(|uplink| uplink.mtu != smallest) {
        found.push(hinders(
            format!("interfaces that lead out of the node have different MTUs: {}", mtus.join(", ")),
            "pods get the smallest, so that what they send fits everywhere",
            "give them one MTU (ip link set IF mtu N), or name those that count: `uplinks` in the settings",
        ));
    }
    let large: Vec<String> =
        pods.iter().filter(|(_, mtu)| *mtu > smallest).map(|(name, mtu)| format!("{name} {mtu}")).collect();
    if !large.is_empty() {
        found.push(hinders(
            format!("links of pods have a larger MTU ({}) than the way out of the node ({smallest})", large.join(", ")),
            "what they send is cut, or answered with `packet too big`, which some servers never see",
            "make these pods anew: they get the MTU of now",
        ));
    }
    for UplinkFacts { name, mtu: _, strict, before } in uplinks {
        if *strict {
            found.push(hinders(
                format!("reverse path filtering is strict on {name}"),
                "what comes by another way than its answer would take is dropped: tunnels, node ports with two uplinks",
                format!("the agent loosens it while it runs: if it does not last, sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
            ));
        }
        if !before.is_empty() {
            found.push(hinders(
                format!("programs of others see packets of {name} before Fairlead does: {}", before.join(", ")),
                "another network's programs take or drop packets that are Fairlead's",
                format!("remove that network; see what is attached: bpftool net show dev {name}"),
            ));
        }
    }
    found
}

fn managers(network_manager: Option<&NetworkManager>, networkd: Option<&Networkd>) -> Vec<Finding> {
    let mut found = Vec::new();
    if network_manager.is_some_and(|manager| !manager.keeps_off) {
        found.push(hinders(
            "NetworkManager runs and was not told to leave pods' links alone",
            "it may set them up anew or take their addresses and routes",
            "printf '[keyfile]\\nunmanaged-devices=interface-name:fl*\\n' >/etc/NetworkManager/conf.d/fairlead.conf; \
             systemctl reload NetworkManager",
        ));
    }
    let Some(Networkd { keeps_routes, claims }) = networkd else { return found };
    if !claims.is_empty() {
        found.push(hinders(
            format!("systemd-networkd sets up pods' links too, by {}", claims.join(", ")),
            "it takes their addresses and routes",
            "printf '[Match]\\nName=fl*\\n[Link]\\nUnmanaged=yes\\n' >/etc/systemd/network/05-fairlead.network; \
             networkctl reload",
        ));
    }
    if !keeps_routes {
        found.push(hinders(
            "systemd-networkd removes routes that are not its own whenever it starts",
            "routes to pods of other nodes are missing until the agent has set them again; with no agent, until there is one",
            "mkdir -p /etc/systemd/networkd.conf.d; printf '[Network]\\nManageForeignRoutes=no\\n\
             ManageForeignRoutingPolicyRules=no\\n' >/etc/systemd/networkd.conf.d/fairlead.conf; \
             systemctl restart systemd-networkd",
        ));
    }
    found
}

fn api(server: &ApiServer) -> Option<Finding> {
    let ApiServer { url, origin, trouble } = server;
    let trouble = trouble.as_ref()?;
    Some(blocks(
        format!("the API server can't be reached at {url} ({origin}): {trouble}"),
        "a new node's agent knows no object without; one that was there before goes on with what it has",
        "correct the address (the setting `apiServer`), or what is between: curl -k URL/version from this node",
    ))
}

fn disk(disk: &Disk) -> Option<Finding> {
    let Disk { path, bytes, files, read_only } = disk;
    let path = path.display();
    let why = "pods' addresses, deletions and the CNI configuration are kept there";
    if *read_only {
        return Some(blocks(format!("{path} is mounted read-only"), why, format!("mount -o remount,rw {path}")));
    }
    if *bytes < FULL || *files == Some(0) {
        let what = if *bytes < FULL { format!("{} KiB are free", bytes >> 10) } else { "no file is free".to_owned() };
        return Some(blocks(
            format!("the file system of {path} is full: {what}"),
            why,
            format!("make room: df -h {path}; df -i {path}"),
        ));
    }
    None
}

fn agent(agent: &Agent) -> Vec<Finding> {
    let Agent { health, reason, warnings } = agent;
    let mut found = Vec::new();
    if let (false, Some(reason)) = (health == "ready", reason) {
        found.push(blocks(
            format!("the agent is {health}: {reason}"),
            "pods that are made now wait for it",
            "see its log: kubectl -n kube-system logs -l app.kubernetes.io/name=fairlead -c agent",
        ));
    }
    // What it says of these is found here too, and in more detail; and a reason is said above.
    let others = warnings.iter().filter(|(topic, text)| {
        let said = reason.as_ref().is_some_and(|reason| reason.contains(text.as_str()));
        !said && !["kube-proxy", "conflist"].contains(&topic.as_str())
    });
    found
        .extend(others.map(|(_, text)| hinders(text.clone(), "the agent says so", "see above, and `fairlead status`")));
    found
}

#[cfg(test)]
mod tests;
