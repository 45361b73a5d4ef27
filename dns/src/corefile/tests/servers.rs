//! What is said of servers and of what is kept of their answers.

use hickory_proto::op::ResponseCode;

use super::*;
use crate::forward::{Failover, Scope};
use crate::plan::ForwardPlan;

/// The servers of a plan, and what they are asked over.
pub(super) fn servers(forward: &ForwardPlan) -> Vec<String> {
    forward.to.iter().map(|Target { source, over }| format!("{source:?} over {over:?}")).collect()
}

/// The only forward of a file with these lines.
fn forward(lines: &str) -> ForwardPlan {
    let [forward] = &plan(&with(lines)).blocks[0].forwards[..] else { panic!("{lines}") };
    forward.clone()
}

#[test]
fn d45_servers_may_have_the_name_in_their_certificate_behind_them() {
    let to = forward(
        "forward . tls://9.9.9.9%dns.quad9.net tls://[2620:fe::fe%dns.quad9.net]:8853 tls://1.1.1.1%one.one:854 \
         192.0.2.1 tls://192.0.2.2",
    );
    let tls = |server: &str, name: &str| format!("Server({server}) over Tls({name:?})");
    assert_eq!(
        servers(&to),
        [
            tls("9.9.9.9:853", "dns.quad9.net"),
            tls("[2620:fe::fe]:8853", "dns.quad9.net"),
            tls("1.1.1.1:854", "one.one"),
            "Server(192.0.2.1:53) over Udp".to_owned(),
            tls("192.0.2.2:853", "192.0.2.2"),
        ]
    );
    // TCP is for those that are not asked over TLS.
    let to = forward("forward . tls://9.9.9.9%dns.quad9.net 192.0.2.1 /etc/resolv.conf {\nforce_tcp\ntls ca.pem\n}");
    let file = "File(\"/etc/resolv.conf\") over Tcp".to_owned();
    let plain = "Server(192.0.2.1:53) over Tcp".to_owned();
    assert_eq!(servers(&to), [tls("9.9.9.9:853", "dns.quad9.net"), plain, file]);
    assert_eq!(to.authorities.as_deref(), Some(Path::new("/c/ca.pem")));
}

#[test]
fn d46_what_becomes_of_answers_that_are_not_taken_is_read() {
    assert_eq!(forward("forward . 192.0.2.1").failover, Failover::default());
    let lines = "next nxdomain REFUSED\nnext_on_nodata\nfailover NXDOMAIN\nfailfast_all_unhealthy_upstreams";
    let wanted = Failover {
        server: vec![ResponseCode::NXDomain],
        route: vec![ResponseCode::NXDomain, ResponseCode::Refused],
        without_data: true,
        fast: true,
    };
    assert_eq!(forward(&format!("forward . 192.0.2.1 {{\n{lines}\n}}")).failover, wanted);
}

#[test]
fn d47_what_is_cached_of_which_zones_is_read() {
    let cache = |lines: &str| forward(&format!("forward . 192.0.2.1\n{lines}")).cache;
    assert_eq!(cache("cache").scope, Scope::default());
    assert_eq!(cache("cache .").scope, Scope::default());
    assert_eq!(cache("cache 30 a.example b.example").scope.zones, [name("a.example"), name("b.example")]);
    let scope = cache("cache {\ndisable success a.example cluster.local\ndisable denial\n}").scope;
    assert_eq!(scope, Scope { zones: vec![], no_records: vec![name("a.example")], no_denials: vec![name(".")] });
    let rules = cache("cache {\nservfail 0\nkeepttl\nprefetch 0\n}");
    assert_eq!((rules.failure, rules.constant, rules.prefetch), (Duration::ZERO, true, false));
    assert_eq!(cache("cache {\nservfail 1m30s\n}").failure, Duration::from_secs(90));
}

#[test]
fn d39_options_without_effect_are_said() {
    for (lines, said) in [
        ("errors {\nconsolidate 5m \".* i/o timeout$\" warning\n}", "consolidate has no effect"),
        ("ready {\nmonitor continuously\n}", "stays ready"),
        ("forward . 192.0.2.1 {\nread_timeout 5s\n}", "read_timeout has no effect"),
        ("forward . 192.0.2.1 {\nhealth_check 5s no_rec domain example.org\n}", "health_check has no effect"),
        ("cache {\nserve_stale 1h verify\n}", "only while no server answers"),
        ("cache {\nprefetch 10 1m 20%\n}", "last tenth"),
    ] {
        let notes = plan(&with(lines)).notes;
        assert!(notes.iter().any(|note| note.contains(said)), "{lines}: {notes:?}");
    }
}

#[test]
fn a_limit_of_none_is_none() {
    let lines = [("", 100_000), ("0", 100_000), ("1", 4), ("1000", 1000), ("4000000000", 100_000)];
    for (limit, most) in lines {
        let line = if limit.is_empty() { String::new() } else { format!("max_concurrent {limit}\n") };
        let plan = plan(&with(&format!("forward . 192.0.2.1 {{\n{line}}}")));
        assert_eq!(plan.blocks[0].forwards[0].max_concurrent, most, "{limit}");
    }
}

#[test]
fn what_a_cache_does_not_do_is_said() {
    let notes = |line: &str| plan(&with(&format!("cache 30 {{\n{line}\n}}"))).notes;
    let says = |line: &str| notes(line).iter().any(|note| note.contains("the least time of success has no effect"));
    assert!(says("success 9984 30 5"));
    assert!(!says("success 9984 30") && !says("success 9984"));
}
