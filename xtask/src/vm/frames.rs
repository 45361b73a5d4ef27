//! Frames of the datapath's own tests, recorded while these run, to be run again in each kernel.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::{paths, run};

/// What the datapath's tests are asked to record by (`record.rs` in its `testing`).
const VARIABLE: &str = "FAIRLEAD_RECORD_FRAMES";

/// Tests that are not recorded at all: frames of the first two are made at random, anew each time, and those of the last are for XDP,
/// which a test run gives no neighbours.
const UNRECORDED: [&str; 3] = ["walk::tests::bytes", "walk::tests::sequences", "walk::tests::xdp_uplink"];

/// Of limits of bandwidth.
const CLOCK: &str = "nanoseconds of the clock";
/// Of sizes on other ways than those between nodes.
const ROUTES: &str = "routes of the node";
/// An interface that another plugin has made.
const FOREIGN: &str = "interfaces of other plugins' numbers";

/// Tests none of whose frames a kernel runs, and why, beside those in [`UNRECORDED`]. A test that is missing here, or has frames that run, is a failure of the matrix.
pub(super) const WITHOUT_FRAMES: [(&str, &str); 20] = [
    ("walk::tests::bandwidth::as_much_passes_as_in_a_model_that_forgets_nothing", CLOCK),
    ("walk::tests::bandwidth::each_segment_of_an_aggregate_has_headers", CLOCK),
    ("walk::tests::bandwidth::what_a_pod_receives_counts_for_it_wherever_it_comes_from", CLOCK),
    ("walk::tests::bandwidth::what_a_pod_sends_counts_for_it_wherever_it_goes", CLOCK),
    ("walk::tests::bandwidth::what_is_too_far_ahead_is_dropped_until_its_turn_comes", CLOCK),
    ("walk::tests::bandwidth::what_leaves_the_node_waits_for_its_turn_where_a_queue_keeps_it", CLOCK),
    ("walk::tests::foreign::c54_services_are_translated_where_the_client_is_and_come_back_there", FOREIGN),
    ("walk::tests::foreign::c55_packets_go_the_way_of_the_other_network_and_are_judged_on_it", FOREIGN),
    ("walk::tests::foreign::c55_who_comes_in_by_an_uplink_is_no_pod_of_the_node", FOREIGN),
    ("walk::tests::foreign::p37_discovery_and_arp_are_all_that_passes_without_policy", FOREIGN),
    (
        "walk::tests::lifecycle::a_connection_for_which_the_established_have_no_room_goes_on",
        "a full table: the kernel's has 524 288 entries",
    ),
    ("walk::tests::opening::a_pod_is_on_no_vlan", "a tag, which a test run can't set"),
    ("walk::tests::outside::s76_what_the_way_back_does_not_take_is_told", ROUTES),
    ("walk::tests::outside::s77_the_segment_size_of_a_client_fits_in_the_interface_that_it_is_behind", ROUTES),
    ("walk::tests::overlay::policy_holds_for_what_comes_through_the_tunnel", "metadata of a tunnel"),
    ("walk::tests::overlay::the_tunnel_takes_from_nodes_what_is_behind_them", "metadata of a tunnel"),
    (
        "walk::tests::overlay::the_tunnel_takes_nothing_from_nodes_that_are_not_reached_through_it",
        "metadata of a tunnel",
    ),
    (
        "walk::tests::paths::segments_of_an_aggregate_count_not_the_aggregate",
        "an aggregate is larger than the page that a test run takes",
    ),
    ("walk::tests::services::s36_a_translated_source_avoids_the_sockets_of_the_node", "sockets of the node"),
    ("walk::tests::to_services::s80_what_is_larger_than_the_way_takes_is_told_by_the_service", ROUTES),
];

/// Tests of the walks that most packets take.
pub(super) const COST: &str = "walk::tests::cost";

/// Runs the tests with this in their name and returns the file with what they have run.
pub(super) fn record(tests: &str) -> Result<PathBuf> {
    run::say("recording the frames of the datapath's tests");
    let file = paths::target().join("frames");
    if file.exists() {
        fs::remove_file(&file)?;
    }
    let mut command = run::cargo();
    command.args(["test", "--locked", "--quiet", "--package", "fairlead-datapath", "--lib", tests, "--"]);
    for name in UNRECORDED {
        command.args(["--skip", name]);
    }
    // One thread would be the harness' own, whose name is not the test's.
    run::run(command.arg("--test-threads=2").env(VARIABLE, &file))?;
    Ok(file)
}
