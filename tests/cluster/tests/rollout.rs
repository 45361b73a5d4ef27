//! Replacing Fairlead on a running cluster.

use anyhow::{Result, ensure};
use fairlead_cluster_tests::World;

/// A restart of all pods, another image, then the first one again: of connections that stay, 500 short ones a second and UDP
/// nothing is lost. Of DNS a single query may be, in the moment when a node's server is replaced by the next: resolvers ask
/// again. README names it among what does not work yet.
#[test]
fn a_rolling_restart_an_upgrade_and_its_withdrawal_lose_no_connection() -> Result<()> {
    const NEXT: &str = "localhost/fairlead:next";
    let world = World::open()?;
    for node in world.nodes() {
        world.cluster.tag_image(&node, concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION")), NEXT)?;
    }
    let load = world.strain()?.start(&world, 110)?;
    world.roll_out()?;
    world.upgrade(NEXT)?;
    world.install()?;
    for running in load {
        let report = running.end()?;
        println!("{report:?}");
        ensure!(report.failures() == report.dns.failures(), "{report:#?}");
        ensure!(report.dns.failures() <= 3 && report.dns.attempted > 1000, "{report:#?}");
    }
    Ok(())
}
