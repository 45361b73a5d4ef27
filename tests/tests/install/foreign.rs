//! What else a machine runs must not change what is found here.

use fairlead_tests::foreign;

#[test]
fn everything_holds_on_a_machine_with_networks_of_its_own() {
    let ended = foreign::run(&std::env::current_exe().unwrap(), &["--skip", "foreign::"]);
    assert!(ended.success(), "there tests fail: {ended}");
}
