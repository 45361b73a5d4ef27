//! Names that newer API servers take.

use anyhow::Result;
use fairlead_cluster_tests::{World, all_end_well};

/// From Kubernetes 1.36 on (KEP-5311).
#[test]
fn d2_a_service_whose_name_begins_with_a_digit_is_served_and_found() -> Result<()> {
    let world = World::open()?;
    const NAME: &str = "7echo";
    let load = world.strain_by(NAME)?.start(&world, 5)?;
    let result = all_end_well(load);
    world.own(&["delete", "service", NAME])?;
    result
}
