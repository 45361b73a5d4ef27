//! Replacing Fairlead on a running cluster.

use anyhow::Result;
use fairlead_cluster_tests::World;

/// HTTP-like connections that stay, 500 short ones a second, UDP, DNS: nothing is lost.
#[test]
fn a_rolling_restart_loses_nothing() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 60)?;
    world.roll_out()?;
    for running in load {
        println!("{:?}", running.ends_well()?);
    }
    Ok(())
}
