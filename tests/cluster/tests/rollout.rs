//! Replacing Fairlead on a running cluster.

use anyhow::Result;
use fairlead_cluster_tests::{World, all_end_well};

/// Connections that stay, 500 short ones a second, UDP, DNS: nothing is lost.
#[test]
fn a_rolling_restart_loses_nothing() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 50)?;
    world.roll_out()?;
    all_end_well(load)
}

/// Another image, then the first one again.
#[test]
fn an_upgrade_and_its_withdrawal_lose_nothing() -> Result<()> {
    const NEXT: &str = "localhost/fairlead:next";
    let world = World::open()?;
    for node in world.nodes() {
        world.cluster.tag_image(&node, concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION")), NEXT)?;
    }
    let load = world.strain()?.start(&world, 90)?;
    world.upgrade(NEXT)?;
    world.install()?;
    all_end_well(load)
}
