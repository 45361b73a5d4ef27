use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Servers;

const CONFIGURED: &str = "api.example:6443";

fn endpoints(all: &[&str]) -> BTreeSet<std::net::SocketAddr> {
    all.iter().map(|text| text.parse().unwrap()).collect()
}

/// A run directory that goes with the test.
struct RunDir(PathBuf);

impl RunDir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fairlead-servers-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

#[test]
fn addresses_are_tried_in_turn_until_one_answers() {
    let dir = RunDir::new("turn");
    let servers = Servers::new(CONFIGURED, Some(&dir.0));
    assert_eq!(servers.current(), CONFIGURED);
    servers.set_endpoints(&endpoints(&["192.0.2.2:6443", "192.0.2.1:6443", "[fd00::1]:6443"]));
    let mut tried = Vec::new();
    for _ in 0..4 {
        assert_eq!(servers.trouble(), None);
        tried.push(servers.current());
        servers.failed(&servers.current(), "refused");
    }
    assert_eq!(tried, [CONFIGURED, "192.0.2.1:6443", "192.0.2.2:6443", "[fd00::1]:6443"]);
    let trouble = servers.trouble().unwrap();
    assert!(trouble.contains("api.example:6443, 192.0.2.1:6443") && trouble.contains("refused"), "{trouble}");
    assert_eq!(servers.current(), CONFIGURED);
    servers.answered();
    assert_eq!(servers.trouble(), None);
}

#[test]
fn a_configured_endpoint_is_tried_once_a_turn() {
    let dir = RunDir::new("once");
    let servers = Servers::new("192.0.2.1:6443", Some(&dir.0));
    servers.set_endpoints(&endpoints(&["192.0.2.1:6443", "192.0.2.2:6443"]));
    servers.failed("192.0.2.1:6443", "refused");
    assert_eq!(servers.current(), "192.0.2.2:6443");
    servers.failed("192.0.2.2:6443", "refused");
    assert_eq!(servers.current(), "192.0.2.1:6443");
    let trouble = servers.trouble().unwrap();
    assert!(trouble.contains("at 192.0.2.1:6443, 192.0.2.2:6443 for"), "{trouble}");
}

#[test]
fn requests_that_fail_late_move_nobody() {
    let dir = RunDir::new("late");
    let servers = Servers::new(CONFIGURED, Some(&dir.0));
    servers.set_endpoints(&endpoints(&["192.0.2.1:6443", "192.0.2.2:6443"]));
    servers.failed(CONFIGURED, "refused");
    servers.failed(CONFIGURED, "refused");
    assert_eq!(servers.current(), "192.0.2.1:6443");
}

#[test]
fn endpoints_are_kept_for_the_next_start() {
    let dir = RunDir::new("kept");
    Servers::new(CONFIGURED, Some(&dir.0)).set_endpoints(&endpoints(&["192.0.2.1:6443"]));
    let next = Servers::new(CONFIGURED, Some(&dir.0));
    assert_eq!(next.current(), CONFIGURED);
    next.failed(CONFIGURED, "refused");
    assert_eq!(next.current(), "192.0.2.1:6443");
    // A file that nobody can read is worth nothing and harms nothing.
    std::fs::write(dir.0.join("apiservers"), "garbage\n\u{0}\n198.51.100.1:1\n").unwrap();
    let next = Servers::new(CONFIGURED, Some(&dir.0));
    next.failed(CONFIGURED, "refused");
    assert_eq!(next.current(), "198.51.100.1:1");
}

#[test]
fn endpoints_that_are_gone_are_left() {
    let dir = RunDir::new("gone");
    let servers = Servers::new(CONFIGURED, Some(&dir.0));
    servers.set_endpoints(&endpoints(&["192.0.2.1:6443", "192.0.2.2:6443"]));
    servers.failed(CONFIGURED, "refused");
    servers.set_endpoints(&BTreeSet::new());
    assert_eq!(servers.current(), "192.0.2.1:6443", "a server that restarts takes itself out: that is no news");
    servers.set_endpoints(&endpoints(&["192.0.2.3:6443"]));
    assert_eq!(servers.current(), CONFIGURED);
    servers.failed(CONFIGURED, "refused");
    assert_eq!(servers.current(), "192.0.2.3:6443");
}

#[test]
fn without_a_directory_there_is_one_address() {
    let servers = Servers::new(CONFIGURED, None);
    servers.set_endpoints(&endpoints(&["192.0.2.1:6443"]));
    servers.failed(CONFIGURED, "refused");
    assert_eq!(servers.current(), CONFIGURED);
    assert!(servers.trouble().is_some());
}

#[test]
fn a_name_is_tried_once() {
    let servers = Servers::new(CONFIGURED, None);
    assert!(!servers.is_named(CONFIGURED));
    assert!(servers.lacks_address(CONFIGURED));
    assert!(servers.is_named(CONFIGURED));
    assert!(!servers.lacks_address(CONFIGURED));
}
