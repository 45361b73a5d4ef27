//! What ends without warning costs no packet.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use fairlead_cluster_tests::{Running, World};

fn all_end_well(load: Vec<Running>) -> Result<()> {
    load.into_iter().try_for_each(|running| running.ends_well().map(|report| println!("{report:?}")))
}

#[test]
fn an_agent_that_is_killed_loses_nothing() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 25)?;
    for node in world.nodes() {
        world.kill("fairlead", &node)?;
    }
    all_end_well(load)
}

/// Queries that were in the killed server are lost; those that come after it reach another node's.
#[test]
fn a_dns_server_that_is_killed_is_replaced() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 25)?;
    world.kill("fairlead-dns", "node-1")?;
    for running in load {
        let report = running.end()?;
        println!("{report:?}");
        // 50 queries a second of each client; containers are started anew within some seconds.
        assert!(report.dns.failures() < report.dns.attempted / 4, "{report:#?}");
        assert_eq!(report.short.failures() + report.long.failures() + report.udp.failures(), 0, "{report:#?}");
    }
    Ok(())
}

/// Agents that start while it is away go on with what the kernel has.
#[test]
fn an_api_server_that_is_killed_loses_nothing() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 40)?;
    world.cluster.stop_api_server()?;
    world.kill_process("fairlead", "node-1")?;
    sleep(Duration::from_secs(15));
    world.cluster.start_api_server()?;
    world.settle()?;
    all_end_well(load)
}
