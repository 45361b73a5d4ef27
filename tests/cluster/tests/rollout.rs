//! Replacing Fairlead on a running cluster.

use anyhow::Result;
use fairlead_cluster_tests::{World, all_end_well};

/// A restart of all pods, another image, then the first one again: of connections that stay, 500 short ones a second, UDP
/// and DNS nothing is lost.
#[test]
fn a_rolling_restart_an_upgrade_and_its_withdrawal_lose_nothing() -> Result<()> {
    const NEXT: &str = "localhost/fairlead:next";
    let world = World::open()?;
    for node in world.nodes() {
        world.cluster.tag_image(&node, concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION")), NEXT)?;
    }
    let load = world.strain()?.start(&world, 110)?;
    world.roll_out()?;
    world.upgrade(NEXT)?;
    world.install()?;
    all_end_well(load)
}
