//! What others on a node unmount comes back, whichever containers have it mounted.

use std::time::Duration;

use anyhow::{Result, ensure};
use fairlead_cluster_tests::{World, all_end_well, wait};

/// The agent goes on with its container's own mount, and its next container begins where nothing is mounted: it may not mount, and
/// takes over what the keeper brings back.
#[test]
fn c58_an_unmounted_bpf_file_system_costs_no_connection() -> Result<()> {
    let world = World::open()?;
    let load = world.strain()?.start(&world, 40)?;
    for node in world.nodes() {
        let mounted = || world.in_node(&node, &["stat", "--format=%d", "/sys/fs/bpf"]);
        let pins = mounted()?;
        for _ in 0..2 {
            world.in_node(&node, &["umount", "/sys/fs/bpf"])?;
            world.kill_process("fairlead", &node)?;
            wait(Duration::from_secs(10), || {
                let now = mounted()?;
                ensure!(now == pins, "{node} has another file system at /sys/fs/bpf: {now}, not {pins}");
                Ok(())
            })?;
            world.settle()?;
            let status = world.ask(&node, &["status"])?;
            ensure!(status["adopted"] == true, "{node} has begun anew: {status}");
        }
    }
    all_end_well(load)
}
