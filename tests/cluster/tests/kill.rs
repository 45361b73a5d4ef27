//! What ends without warning costs no packet.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use fairlead_cluster_tests::{World, all_end_well};

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
    // Kubelet starts a container later and later that has ended often, and others end it, too: this waits for it while the API
    // server is away. That of a new pod starts at once.
    world.roll_out()?;
    let load = world.strain()?.start(&world, 30)?;
    world.cluster.stop_api_server()?;
    // How long it is away is what is tested. Not for longer: the controller manager looks again after twice the time, and has
    // by then given up nodes whose leases it has not seen for 50 s, and so their pods, whoever serves them.
    let back = Instant::now() + Duration::from_secs(15);
    world.kill_process("fairlead", "node-1")?;
    sleep(back.saturating_duration_since(Instant::now()));
    world.cluster.start_api_server()?;
    world.settle()?;
    all_end_well(load)
}

/// Kubelet asks the network whether it is well. Were the answer no, it would take the node, and its pods, out of service.
#[test]
fn nodes_stay_ready_while_their_agents_are_away() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 50)?;
    world.remove_agents()?;
    // How long they are away is what is tested: kubelet has asked many times by then.
    for _ in 0..35 {
        world.nodes_are_ready()?;
        sleep(Duration::from_secs(1));
    }
    world.install()?;
    all_end_well(load)
}
