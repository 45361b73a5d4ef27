//! Blocks of addresses: P16 to P19, P28, P38.

use fairlead_tests::Probes;

use crate::grid::{Turn, turn, verdict};

/// Whether a client outside reaches a pod's TCP port 80, by family: IPv4, IPv6.
fn from_outside(turn: &Turn, to: &str, allow: [bool; 2]) {
    for (ip, allow) in turn.pod(to).ips().into_iter().zip(allow) {
        let probe = fairlead_tests::Probe::tcp(ip, 80);
        turn.lab().wait_until(&format!("the client outside meets the policy of {to} at {ip}"), || {
            verdict(turn.lab().client(), &probe, allow, Some(to))
        });
    }
}

#[test]
fn p16_blocks_with_exceptions() {
    let turn = turn();
    turn.policy(
        "x/in",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/24, except: [172.18.0.96/28]}}, \
                         {ipBlock: {cidr: 'fd00:172:18::/64', except: ['fd00:172:18::200/120']}}]}]}",
    );
    // The client is 172.18.0.100 and fd00:172:18::100.
    from_outside(&turn, "x/a", [false, true]);
    turn.policy(
        "x/in",
        "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/24, except: [172.18.0.101/32]}}, \
                         {ipBlock: {cidr: 'fd00:172:18::/64', except: ['fd00:172:18::100/128']}}]}]}",
    );
    from_outside(&turn, "x/a", [true, false]);
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x");
}

#[test]
fn p17_an_exception_is_its_own_entrys_only() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16, except: [172.18.0.0/24]}}]}]}");
    from_outside(&turn, "x/a", [false, false]);
    turn.policy(
        "x/more",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.100/32}}]}]}",
    );
    from_outside(&turn, "x/a", [true, false]);
}

#[test]
fn p18_old_ways_to_write_a_block_are_read() {
    let turn = turn();
    turn.policy(
        "x/in",
        "{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.77/24}}, \
                         {ipBlock: {cidr: 'FD00:0172:18::5/64'}}]}]}",
    );
    from_outside(&turn, "x/a", [true, true]);
}

#[test]
fn p19_blocks_match_pods() {
    let turn = turn();
    let [v4, v6] = turn.pod("y/b").ips();
    turn.policy("x/in", &format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: {v4}/32}}}}, {{ipBlock: {{cidr: '{v6}/128'}}}}]}}]}}"));
    turn.matrix(|cell| cell.is_self() || cell.server_ns() != "x" || cell.from == "y/b");
}

#[test]
fn p28_blocks_mean_the_backend_and_never_the_service() {
    let turn = turn();
    turn.policy(
        "x/service",
        "{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: \
                              [{ipBlock: {cidr: 10.96.0.0/16}}, {ipBlock: {cidr: 'fd00:10:96::/112'}}]}]}",
    );
    turn.policy(
        "x/pods",
        "{podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: [{to: \
                           [{ipBlock: {cidr: 10.244.0.0/16}}, {ipBlock: {cidr: 'fd00:10:244::/48'}}]}]}",
    );
    turn.matrix(|cell| cell.is_self() || cell.from != "x/a");
}

#[test]
fn p38_blocks_speak_of_their_family_only() {
    let turn = turn();
    turn.policy("x/in", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}");
    turn.policy("y/in", "{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: '::/0'}}]}]}");
    turn.matrix(|cell| match cell.server_ns() {
        _ if cell.is_self() => true,
        "x" => !cell.v6,
        "y" => cell.v6,
        _ => true,
    });
    from_outside(&turn, "x/a", [true, false]);
    from_outside(&turn, "y/a", [false, true]);
    assert_eq!(turn.pod("z/a").tcp(turn.pod("x/a").v4(), 80).unwrap().server.pod, "x/a");
}
