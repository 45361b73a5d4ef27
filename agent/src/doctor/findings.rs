//! From facts to findings.

mod claims;
mod cni;
mod dns;

use std::fmt::Write;

use serde::Serialize;

use crate::parts::Parts;

use super::facts::{Agent, ApiServer, Disk, Facts, Keeper, Kernel, NetworkManager, Networkd, Proxy, UplinkFacts};

/// The oldest kernel that is tested.
const OLDEST: (u32, u32) = (6, 1);

/// Below this a directory counts as full, in bytes.
const FULL: u64 = 1 << 20;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Fairlead cannot work on this node like this.
    Blocks,
    /// Fairlead works, but impaired or at risk.
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

pub(super) fn blocks(what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Blocks, what: what.into(), why, remedy: remedy.into() }
}

pub(super) fn hinders(what: impl Into<String>, why: &'static str, remedy: impl Into<String>) -> Finding {
    Finding { severity: Severity::Hinders, what: what.into(), why, remedy: remedy.into() }
}

/// What is not as it should be, the worst first.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let Facts {
        kernel: kernel_facts,
        bpffs,
        keeper,
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
        node_local_dns,
        disks,
        agent: agent_facts,
        unseen: _,
    } = facts;
    let mut found = kernel(kernel_facts);
    if let Some((path, false)) = bpffs {
        let (path, why) =
            (path.display(), "maps and programs are pinned there, so that traffic continues without the agent");
        found.push(blocks(
            format!("no bpf file system is mounted at {path}"),
            why,
            format!("run `fairlead install`, or: mount -t bpf -o mode=0700 bpf {path}"),
        ));
    }
    found.extend(kept(keeper));
    if let Some(text) = cgroup {
        found.push(blocks(
            "no usable cgroup v2 hierarchy for the socket hooks".to_owned(),
            "processes of the node reach services only through socket hooks",
            text.clone(),
        ));
    }
    // Beside another network or another proxy, what those have is as it should be.
    let parts = agent_facts.as_ref().map_or(Parts::All, |agent| agent.parts);
    found.extend(kube_proxy(proxy).filter(|_| parts.serves()));
    if parts.wires() {
        found.extend(firewall(forward_drop));
        found.extend(cni::cni(cni_facts));
    }
    found.extend(uplink_facts.iter().flat_map(|facts| uplinks(facts, pods)));
    if !settings.is_empty() {
        found.push(hinders(
            format!("sysctls that prevent forwarding: {}", settings.join(", ")),
            "the node must forward the packets of its pods",
            "`fairlead install` and the running agent set them; if something resets them, correct the file that does: \
             grep -r forward /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d",
        ));
    }
    if *no_ipv6 {
        found.push(hinders(
            "IPv6 is disabled (net.ipv6.conf.all.disable_ipv6 = 1)",
            "pods get an address of each family for which their node has a pod range",
            "sysctl -w net.ipv6.conf.all.disable_ipv6=0, or use IPv4 pod ranges only",
        ));
    }
    found.extend(managers(network_manager.as_ref(), networkd.as_ref()));
    found.extend(api_server.as_ref().and_then(api));
    found.extend(dns::node_local_dns(node_local_dns, agent_facts.as_ref()));
    found.extend(disks.iter().filter_map(disk));
    found.extend(agent_facts.iter().flat_map(agent));
    found.sort_by_key(|finding| finding.severity);
    found
}

/// What is not put back.
fn kept(keeper: &Keeper) -> Vec<Finding> {
    const REMEDY: &str = "see its log: kubectl -n kube-system logs -l app.kubernetes.io/name=fairlead -c keep";
    match keeper {
        Keeper::Unknown | Keeper::Absent => Vec::new(),
        Keeper::Runs(said) => {
            let why = "`fairlead install --keep` puts back what somebody unmounts or removes on the node, and could not put back this";
            said.lines().filter(|line| !line.is_empty()).map(|line| hinders(line, why, REMEDY)).collect()
        }
        Keeper::Silent(silent) => vec![hinders(
            format!("`fairlead install --keep` has not looked for {} s", silent.as_secs()),
            "it looks every ten seconds, and what somebody unmounts or removes on the node stays so; an agent that starts does not \
             wait for it",
            format!("find out what it waits for (cat /proc/PID/stack), and restart it; {REMEDY}"),
        )],
    }
}

fn firewall(stopping: &[String]) -> Option<Finding> {
    if stopping.is_empty() {
        return None;
    }
    let of_firewalld = |chain: &&String| chain.split(' ').nth(1) == Some("firewalld");
    let mut remedies = Vec::new();
    if stopping.iter().any(|chain| of_firewalld(&chain)) {
        remedies.push(
            "firewalld: for each range of the cluster's pods, firewall-cmd --permanent --zone=trusted --add-source=RANGE; \
             then firewall-cmd --reload (by interface, fl+, is enough for this node's pods, and means flannel.1 too)",
        );
    }
    if !stopping.iter().all(|chain| of_firewalld(&chain)) {
        remedies.push(
            "iptables -I FORWARD -i fl+ -j ACCEPT; iptables -I FORWARD -o fl+ -j ACCEPT (and the same with ip6tables; fl+ \
             means flannel.1 too); with Docker, in the chain DOCKER-USER, or \"ip-forward-no-drop\": true in \
             /etc/docker/daemon.json",
        );
    }
    Some(hinders(
        format!("the firewall drops or rejects forwarded packets: {}", stopping.join(", ")),
        "traffic from pods to the outside is forwarded by the node's network stack",
        remedies.join("; "),
    ))
}

fn kernel(kernel: &Kernel) -> Vec<Finding> {
    let Kernel { release, version, btf, jit, ends_sockets, lacks, refuses } = kernel;
    let mut found = Vec::new();
    if version.is_some_and(|version| version < OLDEST) {
        found.push(blocks(
            format!("Linux {release}"),
            "Fairlead uses eBPF features that older kernels lack",
            format!("use a kernel of {}.{} or newer", OLDEST.0, OLDEST.1),
        ));
    }
    if !lacks.is_empty() {
        found.push(blocks(
            format!("the kernel lacks {}", lacks.join(", ")),
            "eBPF programs cannot be loaded",
            "use a kernel with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF, CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS, as in \
             distribution kernels",
        ));
    }
    if let Some(why) = refuses {
        found.push(blocks(
            format!("the kernel refuses eBPF: {why}"),
            "all packet processing is done by eBPF programs",
            "run as root with CAP_BPF and CAP_NET_ADMIN; kernel lockdown mode forbids eBPF (see \
             /sys/kernel/security/lockdown)",
        ));
    }
    if *btf == Some(false) {
        found.push(hinders(
            "the kernel has no BTF (/sys/kernel/btf/vmlinux)",
            "socket storage, in which a socket's service is kept, needs it",
            "use a kernel with CONFIG_DEBUG_INFO_BTF, as in distribution kernels",
        ));
    }
    if *jit == Some(false) {
        found.push(hinders(
            "the eBPF JIT is disabled (net.core.bpf_jit_enable = 0)",
            "packet processing is several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ));
    }
    if *ends_sockets == Some(false) {
        found.push(hinders(
            "the kernel cannot close sockets of processes (CONFIG_INET_DIAG_DESTROY)",
            "connections of the node's own processes to pods that are gone wait until they time out",
            "use a kernel with CONFIG_INET_DIAG_DESTROY, as in distribution kernels",
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
        let _infallible = write!(seen, "{} of its tables and chains, such as {first}", rules.len());
    }
    if *ipvs {
        seen += if seen.is_empty() { "" } else { ", " };
        seen += "the device kube-ipvs0";
    }
    if !processes.is_empty() || mode.is_some() {
        let mode = mode.as_ref().map(|mode| format!(" in mode {mode}")).unwrap_or_default();
        let rules = if seen.is_empty() { seen } else { format!(", with {seen}") };
        return Some(hinders(
            format!("kube-proxy is running{mode}{rules}"),
            "both implement services, and each drops or translates connections that the other does not know; Fairlead \
             does not touch kube-proxy's rules",
            "kubectl -n kube-system delete daemonset kube-proxy, or, if other nodes still need it, exclude this node from it \
             (manifests/book/src/operate/migrate.md#kube-proxy); then remove its rules: kube-proxy --cleanup. `kubeadm upgrade` \
             brings it back: manifests/README.md#kubeadm",
        ));
    }
    (!seen.is_empty()).then(|| {
        hinders(
            format!("kube-proxy left {seen}"),
            "stale rules translate service addresses to backends that no longer exist, and drop packets",
            "kube-proxy --cleanup; or: nft delete table ip kube-proxy; nft delete table ip6 kube-proxy; \
             iptables-save | grep -v KUBE- | iptables-restore; ip link delete kube-ipvs0; or reboot the node",
        )
    })
}

fn uplinks(uplinks: &[UplinkFacts], pods: &[(String, u32)]) -> Vec<Finding> {
    let mut found = Vec::new();
    if uplinks.is_empty() {
        found.push(blocks(
            "no uplink found",
            "other nodes and the outside are reached through an interface with a default route or an address of the Node object",
            "give an interface one of these, or name it in the settings: `uplinks` (and see `excludeUplinks`)",
        ));
    }
    let mtus: Vec<String> = uplinks.iter().map(|uplink| format!("{} {}", uplink.name, uplink.mtu)).collect();
    let smallest = uplinks.iter().map(|uplink| uplink.mtu).min().unwrap_or(u32::MAX);
    if uplinks.iter().any(|uplink| uplink.mtu != smallest) {
        found.push(hinders(
            format!("uplinks have different MTUs: {}", mtus.join(", ")),
            "pods get the smallest MTU, so that their packets fit everywhere",
            "set the same MTU (ip link set IF mtu N), or list the uplinks to use: `uplinks` in the settings",
        ));
    }
    let large: Vec<String> =
        pods.iter().filter(|(_, mtu)| *mtu > smallest).map(|(name, mtu)| format!("{name} {mtu}")).collect();
    if !large.is_empty() {
        found.push(hinders(
            format!("pod interfaces have a larger MTU ({}) than the uplink ({smallest})", large.join(", ")),
            "their packets are fragmented or answered with ICMP `packet too big`, which some servers never receive",
            "recreate these pods: new pods get the current MTU",
        ));
    }
    for UplinkFacts { name, mtu: _, strict, paces: _, before } in uplinks {
        if *strict {
            found.push(hinders(
                format!("reverse path filtering is strict on {name}"),
                "packets that arrive on a different interface than the answer would use are dropped: tunnels, NodePorts with two uplinks",
                format!("the agent sets it to loose; if something resets it: sysctl -w net.ipv4.conf.{name}.rp_filter=2"),
            ));
        }
        if !before.is_empty() {
            found.push(hinders(
                format!("other eBPF programs run before Fairlead's on {name}: {}", before.join(", ")),
                "programs of another network plugin redirect or drop packets before Fairlead sees them",
                format!("remove that network plugin; to see what is attached: bpftool net show dev {name}"),
            ));
        }
    }
    found
}

fn managers(network_manager: Option<&NetworkManager>, networkd: Option<&Networkd>) -> Vec<Finding> {
    let mut found = Vec::new();
    if network_manager.is_some_and(|manager| !manager.keeps_off) {
        found.push(hinders(
            "NetworkManager is running and manages interfaces of pods or of the tunnel",
            "it may reconfigure them or remove their addresses and routes",
            "printf '[keyfile]\\nunmanaged-devices=interface-name:fl??????????;interface-name:fairlead.vxlan\\n' \
             >/etc/NetworkManager/conf.d/fairlead.conf; systemctl reload NetworkManager",
        ));
    }
    let Some(Networkd { keeps_routes, claims }) = networkd else { return found };
    if !claims.is_empty() {
        found.push(hinders(
            format!("systemd-networkd manages interfaces of pods or of the tunnel, because of {}", claims.join(", ")),
            "it removes their addresses and routes",
            "printf '[Match]\\nName=fl?????????? fairlead.vxlan\\n[Link]\\nUnmanaged=yes\\n' \
             >/etc/systemd/network/05-fairlead.network; networkctl reload",
        ));
    }
    if !keeps_routes {
        found.push(hinders(
            "systemd-networkd removes foreign routes when it starts",
            "routes to pods of other nodes are missing until the agent restores them",
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
        format!("the API server is unreachable at {url} ({origin}): {trouble}"),
        "the agent of a new node needs it to start; a running one continues with what it has",
        "correct the address (setting `apiServer`) or the network path; to test: curl -k URL/version on this node",
    ))
}

fn disk(disk: &Disk) -> Option<Finding> {
    let Disk { path, bytes, files, read_only } = disk;
    let path = path.display();
    let why = "pod addresses, pending deletions and the CNI configuration are stored there";
    if *read_only {
        return Some(blocks(format!("{path} is mounted read-only"), why, format!("mount -o remount,rw {path}")));
    }
    if *bytes < FULL || *files == Some(0) {
        let what = if *bytes < FULL { format!("{} KiB free", bytes >> 10) } else { "no free inodes".to_owned() };
        return Some(blocks(
            format!("the file system of {path} is full: {what}"),
            why,
            format!("free space or inodes: df -h {path}; df -i {path}"),
        ));
    }
    None
}

fn agent(agent: &Agent) -> Vec<Finding> {
    let Agent {
        parts: _,
        health,
        reason,
        warnings,
        claims: claimed,
        pod_ranges,
        node_local_dns: _,
        uplinks: _,
        addresses: _,
        ranges: _,
    } = agent;
    let mut found = Vec::new();
    if let (false, Some(reason)) = (health == "ready", reason) {
        found.push(blocks(
            format!("the agent is {health}: {reason}"),
            "new pods wait until it is ready",
            "check its log: kubectl -n kube-system logs -l app.kubernetes.io/name=fairlead -c agent",
        ));
    }
    // What it says of these is found here too, and in more detail; and a reason is said above.
    let others = warnings.iter().filter(|(topic, text)| {
        let said = reason.as_ref().is_some_and(|reason| reason.contains(text.as_str()));
        !said && !["kube-proxy", "conflist", "plugins"].contains(&topic.as_str())
    });
    found.extend(others.map(|(_, text)| hinders(text.clone(), "reported by the agent", "see `fairlead status`")));
    found.extend(claims::claims(claimed, pod_ranges));
    found
}

#[cfg(test)]
mod tests;
