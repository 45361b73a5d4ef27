//! A node that starts anew.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};

#[test]
fn a_node_that_starts_anew_leaks_no_address() -> Result<()> {
    let world = World::open()?;
    world.strain()?;
    let node = "node-2";
    let before = world.footprint(node)?;
    world.cluster.restart_node(node)?;
    wait(Duration::from_secs(180), || {
        world.settle()?;
        let after = world.footprint(node)?;
        ensure!(after.pods == before.pods && after.links == before.links, "before {before:?}, after {after:?}");
        Ok(())
    })?;
    all_end_well(world.strain()?.start(&world, 5)?)
}
