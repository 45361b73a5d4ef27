//! Many pods at once, and nothing left of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, wait};

#[test]
fn two_hundred_pods_leave_nothing() -> Result<()> {
    let world = World::open()?;
    let _strain = world.strain()?;
    let footprints = || world.nodes().iter().map(|node| world.footprint(node)).collect::<Result<Vec<_>>>();
    let before = footprints()?;
    world.crowd(200, Duration::from_secs(420))?;
    world.crowd(0, Duration::from_secs(240))?;
    wait(Duration::from_secs(20), || {
        let after = footprints()?;
        ensure!(after == before, "before {before:?}, after {after:?}");
        Ok(())
    })
}
