//! For hours: `cargo xtask test --soak`.

use std::env;

use anyhow::{Context, Result, ensure};
use fairlead_cluster_tests::{Network, World, questions, soak};

/// Questions that are not counted as load: each kind is tried until it succeeds before it counts.
const UNCOUNTED: u64 = 200;

/// First beside another network, so that nobody blames the machine; then while Fairlead is disturbed; then in peace, when
/// nothing may grow.
#[test]
#[ignore = "takes as long as it is told to: `cargo xtask test --soak`"]
fn nothing_fails_that_the_objects_do_not_explain() -> Result<()> {
    let minutes: u64 = env::var("FAIRLEAD_SOAK_MINUTES").context("`cargo xtask test --soak` sets it")?.parse()?;
    let world = World::bare()?;
    world.host.install_kube_proxy(&world.cluster)?;
    world.cluster.wait_until_ready()?;
    let peer = soak(&world, minutes, Network::Peer)?;
    println!("kube-proxy, reference bridge and CoreDNS, {minutes} minutes:\n{peer}");
    world.cluster.remove_kube_proxy()?;
    world.install()?;
    world.remove_coredns()?;
    world.renew()?;

    let half = (minutes / 2).max(5);
    let disturbed = soak(&world, half, Network::Disturbed)?;
    println!("Fairlead, killed and upgraded, {half} minutes:\n{disturbed}");

    let before = questions(&world)?;
    let left_alone = soak(&world, half, Network::LeftAlone)?;
    println!("Fairlead, left alone, {half} minutes:\n{left_alone}");
    let (asked, answered) = (left_alone.attempted("dns"), questions(&world)? - before);

    ensure!(disturbed.failures() == 0 && left_alone.failures() == 0, "something failed: see above");
    ensure!((asked..=asked + UNCOUNTED).contains(&answered), "{asked} questions were asked, {answered} counted");
    let grown = left_alone.grown(|name| {
        // Pages that an allocator keeps, entries of connections that are over a little later, and packets to pods that go.
        if name.contains("memory") { 4 << 10 } else { 2_000 }
    });
    ensure!(grown.is_empty(), "this grew (what, most in the first half, most in the second): {grown:#?}");
    Ok(())
}
