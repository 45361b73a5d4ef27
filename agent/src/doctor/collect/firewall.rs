//! The node's firewall: the tables and chains of nftables, which iptables writes to as well.
//!
//! They are asked of the kernel by netlink, since the image has no `nft`. Only the tables of the legacy iptables are not
//! among them; where there are such and their program is here, it is asked.

mod lines;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use ipnetwork::IpNetwork;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// Tables that a legacy iptables of this network namespace uses.
const LEGACY: [(&str, &str, &str); 2] = [
    ("ip", "/proc/self/net/ip_tables_names", "iptables-legacy-save"),
    ("ip6", "/proc/self/net/ip6_tables_names", "ip6tables-legacy-save"),
];

/// Families of tables with their numbers (include/uapi/linux/netfilter.h).
const FAMILIES: [(u8, &str); 6] = [(1, "inet"), (2, "ip"), (3, "arp"), (5, "netdev"), (7, "bridge"), (10, "ip6")];

/// The table of firewalld, which rejects what none of its zones accepts, in chains that differ between its versions.
const FIREWALLD: &str = "firewalld";

/// A table, or a chain in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// `ip`, `ip6`, `inet`, …
    pub(super) family: &'static str,
    pub(super) table: String,
    /// Nothing for the table itself.
    pub(super) chain: Option<String>,
    /// Whether it is one of nftables for what the node forwards.
    pub(super) forwards: bool,
    /// Whether it is for what the node forwards and drops what no rule lets pass: by its policy, as far as is known here.
    pub(super) drops_forwarded: bool,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.table)?;
        self.chain.iter().try_for_each(|chain| write!(f, " {chain}"))
    }
}

/// All tables and chains. What can't be asked is noted.
pub(super) fn rules(unseen: &mut Vec<(String, String)>) -> Vec<Rule> {
    let mut found = Vec::new();
    for (get, new) in [(GET_TABLE, NEW_TABLE), (GET_CHAIN, NEW_CHAIN)] {
        match dump(get, 0, &[]) {
            Ok(messages) => found.extend(messages.iter().filter_map(|message| parse(message, new))),
            // A kernel without nftables has none.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EPROTONOSUPPORT | libc::EOPNOTSUPP)) => {}
            Err(error) => unseen.push(refused(&error)),
        }
    }
    for (family, names, program) in LEGACY {
        let names = fs::read_to_string(names).unwrap_or_default();
        if names.trim().is_empty() {
            continue;
        }
        match Command::new(program).output() {
            Ok(output) if output.status.success() => {
                found.extend(legacy(family, &String::from_utf8_lossy(&output.stdout)));
            }
            _ => unseen.push((
                format!(
                    "tables of the legacy iptables ({family}: {})",
                    names.split_whitespace().collect::<Vec<_>>().join(", ")
                ),
                format!("{program} does not work here; on the node: {program} | grep -E 'KUBE-|FORWARD DROP'"),
            )),
        }
    }
    found
}

/// What of the firewall drops or rejects packets from pods that the node forwards: chains by their policy or their last rule,
/// and firewalld. Where a rule of the same table is about pods' interfaces or all of `ranges`, those of this node's pods, that
/// is taken to let them pass.
pub(super) fn stopping(rules: &[Rule], ranges: &[IpNetwork], unseen: &mut Vec<(String, String)>) -> Vec<String> {
    let legacy = rules.iter().filter(|rule| rule.drops_forwarded && !rule.forwards);
    let mut found: Vec<String> = legacy.map(ToString::to_string).collect();
    let forwarding = rules.iter().filter(|rule| rule.forwards);
    let tables: BTreeSet<_> = forwarding.clone().map(|rule| (rule.family, rule.table.as_str())).collect();
    for (family, table) in tables {
        let number = FAMILIES.iter().find(|(_, name)| *name == family).map_or(0, |(number, _)| *number);
        let lines = match dump(GET_RULE, number, &lines::of_table(table)) {
            Ok(messages) => messages.iter().filter_map(|message| lines::parse(message)).collect(),
            Err(error) => {
                unseen.push(refused(&error));
                Vec::new()
            }
        };
        let of_table: Vec<_> = forwarding.clone().filter(|rule| rule.family == family && rule.table == table).collect();
        found.extend(stopping_in(&of_table, &lines, ranges));
    }
    found
}

/// The same for the forwarding chains of a table with all its rules.
fn stopping_in(chains: &[&Rule], lines: &[lines::Line], ranges: &[IpNetwork]) -> Vec<String> {
    let Some(first) = chains.first() else { return Vec::new() };
    if lines::let_pods_pass(lines, first.family, ranges) {
        return Vec::new();
    }
    let ends = |name: &str| lines.iter().rfind(|line| line.chain == name).is_some_and(|line| line.stops_all);
    let stops = |rule: &&&Rule| rule.drops_forwarded || rule.chain.as_deref().is_some_and(ends);
    let found: Vec<String> = chains.iter().filter(stops).map(ToString::to_string).collect();
    if found.is_empty() && first.table == FIREWALLD {
        return vec![format!("{} {FIREWALLD}", first.family)];
    }
    found
}

fn refused(error: &io::Error) -> (String, String) {
    ("the node's firewall".to_owned(), format!("{error}: this needs CAP_NET_ADMIN"))
}

/// Of include/uapi/linux/netfilter/nf_tables.h, with the subsystem's number in front.
const GET_TABLE: u16 = 10 << 8 | 1;
const NEW_TABLE: u16 = 10 << 8;
const GET_CHAIN: u16 = 10 << 8 | 4;
const NEW_CHAIN: u16 = 10 << 8 | 3;
const GET_RULE: u16 = 10 << 8 | 7;
const NEW_RULE: u16 = 10 << 8 | 6;

/// Bytes of `struct nlmsghdr`, and of it with `struct nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = HEADER + 4;

/// Asks for everything of a kind, in a family or all (0), and gives the messages.
fn dump(kind: u16, family: u8, attributes: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    /// `NLM_F_REQUEST | NLM_F_DUMP`
    const FLAGS: u16 = 1 | 0x300;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    let mut request = Vec::with_capacity(GENERIC);
    request.extend(((GENERIC + attributes.len()) as u32).to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(FLAGS.to_ne_bytes());
    // Sequence and port; then family, version and resource.
    request.extend([0; 8]);
    request.extend([family, 0, 0, 0]);
    request.extend(attributes);
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut messages = Vec::new();
    while receive(&socket, &mut messages)? {}
    Ok(messages)
}

/// Receives some messages. Says whether more are to come.
fn receive(socket: &OwnedFd, messages: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    const ERROR: u16 = 2;
    const DONE: u16 = 3;
    let mut buffer = vec![0; 64 << 10];
    let received = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
    let mut rest = buffer.get(..received).unwrap_or_default();
    while let Some(length) = u32_at(rest, 0).map(|length| length as usize).filter(|length| *length >= HEADER) {
        let message = rest.get(..length).unwrap_or(rest);
        match u16_at(message, 4) {
            Some(ERROR) => {
                let code = u32_at(message, HEADER).map_or(0, u32::cast_signed);
                return Err(io::Error::from_raw_os_error(-code));
            }
            Some(DONE) => return Ok(false),
            _ => messages.push(message.to_vec()),
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(true)
}

fn parse(message: &[u8], kind: u16) -> Option<Rule> {
    const TABLE: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const POLICY: u16 = 5;
    /// Within [`HOOK`].
    const NUMBER: u16 = 1;
    /// `NF_INET_FORWARD`
    const FORWARD: u32 = 2;
    /// `NF_DROP`
    const DROP: u32 = 0;
    if u16_at(message, 4)? != kind {
        return None;
    }
    let number = message.get(HEADER)?;
    let family = FAMILIES.iter().find(|(known, _)| known == number).map_or("unknown", |(_, name)| *name);
    let attributes = message.get(GENERIC..)?;
    let (table, chain) = (text(attribute(attributes, TABLE)?), attribute(attributes, NAME).map(text));
    let number = attribute(attributes, HOOK).and_then(|hook| attribute(hook, NUMBER)).and_then(be32);
    let policy = attribute(attributes, POLICY).and_then(be32);
    let forwards = ["ip", "ip6", "inet"].contains(&family) && number == Some(FORWARD);
    let chain = if kind == NEW_CHAIN { Some(chain?) } else { None };
    Some(Rule { family, table, chain, forwards, drops_forwarded: forwards && policy == Some(DROP) })
}

/// An attribute's content (`struct nlattr`); its type's upper bits are flags.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (length, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)? & 0x3fff);
        let content = attributes.get(4..length)?;
        if kind == wanted {
            return Some(content);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// What `iptables-save` prints: `*nat`, then `:KUBE-SERVICES - [0:0]` for each chain, then rules as they are added.
fn legacy(family: &'static str, saved: &str) -> Vec<Rule> {
    let mut table = String::new();
    let mut found = Vec::new();
    for line in saved.lines() {
        if let Some(name) = line.strip_prefix('*') {
            name.clone_into(&mut table);
        } else if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split(' ');
            let (name, policy) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let drops_forwarded = name == "FORWARD" && policy == "DROP";
            let chain = Some(name.to_owned());
            found.push(Rule { family, table: table.clone(), chain, forwards: false, drops_forwarded });
        }
    }
    let added = |line: &str, rule: &str| line.strip_prefix("-A ").is_some_and(|line| line.starts_with(rule));
    let last = saved.lines().rfind(|line| added(line, "FORWARD "));
    let ends = last.is_some_and(|line| added(line, "FORWARD -j REJECT") || added(line, "FORWARD -j DROP"));
    let pods_pass = saved.lines().any(|line| line.contains(" -i fl+ ") && line.ends_with(" -j ACCEPT"));
    for rule in found.iter_mut().filter(|rule| rule.chain.as_deref() == Some("FORWARD")) {
        rule.drops_forwarded = (rule.drops_forwarded || ends && rule.table == "filter") && !pods_pass;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legacy_save_is_read() {
        let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\nCOMMIT\n\
                     *filter\n:FORWARD DROP [0:0]\nCOMMIT\n";
        let found: Vec<_> = legacy("ip", saved).iter().map(|rule| (rule.to_string(), rule.drops_forwarded)).collect();
        let expected = [("ip nat PREROUTING", false), ("ip nat KUBE-SERVICES", false), ("ip filter FORWARD", true)];
        assert_eq!(found, expected.map(|(text, drops)| (text.to_owned(), drops)));
    }

    #[test]
    fn a_legacy_chain_that_ends_in_a_refusal_drops_unless_pods_pass() {
        let drops = |rules: &str| {
            let saved = format!("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n");
            legacy("ip", &saved).iter().any(|rule| rule.drops_forwarded)
        };
        // As the package iptables-services of Red Hat's distributions has it.
        let refused = "-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";
        assert!(drops(refused) && drops("-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -j DROP\n"));
        assert!(!drops(&format!("{refused}-A FORWARD -j ACCEPT\n")), "the last one counts");
        assert!(!drops("-A FORWARD -i eth0 -j DROP\n") && !drops("-A INPUT -j DROP\n") && !drops(""));
        assert!(!drops(&format!("-A FORWARD -i fl+ -j ACCEPT\n{refused}")));
    }

    fn chain(table: &str, name: &str, drops_forwarded: bool) -> Rule {
        Rule { family: "inet", table: table.into(), chain: Some(name.into()), forwards: true, drops_forwarded }
    }

    #[test]
    fn chains_stop_by_policy_or_by_their_last_rule_and_firewalld_in_any_case() {
        let line = |chain: &str, stops_all| lines::Line { chain: chain.into(), stops_all, passes: vec![] };
        let (closed, open) = (chain("filter", "closed", true), chain("filter", "open", false));
        let both = [&closed, &open];
        assert_eq!(stopping_in(&both, &[], &[]), ["inet filter closed"]);
        let ends = [line("open", false), line("other", false), line("open", true)];
        assert_eq!(stopping_in(&both, &ends, &[]), ["inet filter closed", "inet filter open"]);
        assert_eq!(stopping_in(&both[1..], &[line("open", true), line("open", false)], &[]), [""; 0]);
        let firewalld = chain(FIREWALLD, "filter_FORWARD", false);
        assert_eq!(stopping_in(&[&firewalld], &[line("filter_FORWARD", false)], &[]), ["inet firewalld"]);
        let ends = [line("filter_FORWARD", true)];
        assert_eq!(stopping_in(&[&firewalld], &ends, &[]), ["inet firewalld filter_FORWARD"]);
        let pods = lines::Line { passes: vec![lines::Origin::Interface(b"fl".into())], ..line("zone", false) };
        assert_eq!(stopping_in(&both, &[pods], &[]), [""; 0]);
    }

    #[test]
    fn messages_that_are_cut_off_are_nothing() {
        let whole = [&[0; 4][..], &NEW_TABLE.to_ne_bytes(), &[0; 10], &[2, 0, 0, 0], &[8, 0, 1, 0], b"nat\0"].concat();
        assert_eq!(parse(&whole, NEW_TABLE).unwrap().to_string(), "ip nat");
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end], NEW_TABLE), None, "{end}");
        }
    }
}
