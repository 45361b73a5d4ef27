//! Two pods that have the same few source ports, and so use them again before the server has forgotten them.

use std::thread;
use std::time::Duration;

use fairlead_tests::{Drive, Ending, Lab, Pod, Probes};

use crate::world::{PORT, assert_clean, outside};

/// The source ports of each pod.
const PORTS: &str = "40000 40499";

/// New connections a second of each pod: every port is used twice in four seconds, or more often.
const RATE: u32 = 350;

const DURING: Duration = Duration::from_secs(4);

/// Has the pod use few ports, and its own connections that wait for their end give theirs up after a second, which Linux
/// does with timestamps only.
fn restrict(pod: &Pod, timestamps: bool) {
    let range = format!("net.ipv4.ip_local_port_range={PORTS}");
    let timestamps = format!("net.ipv4.tcp_timestamps={}", u8::from(timestamps));
    pod.must_run(&["sysctl", "-qw", &range, "net.ipv4.tcp_tw_reuse=1", &timestamps]);
}

/// Both pods at once, so that each port is wanted by both: one keeps it, the other's is translated.
fn load(lab: &Lab, pods: &[Pod; 2], ending: Ending, what: &str) {
    for to in outside() {
        let drive = Drive { to, ending, rate: RATE, during: DURING / 2 };
        let driven = thread::scope(|scope| {
            pods.each_ref()
                .map(|pod| scope.spawn(move || pod.drive(&drive)))
                .map(|each| each.join().expect("it drives"))
        });
        for (pod, driven) in pods.iter().zip(driven) {
            assert_clean(lab, &driven, &format!("{} to {to}, {ending}, {what}", pod.key()));
        }
    }
}

#[test]
fn s49_ports_are_used_again_while_the_server_remembers_them() {
    let lab = Lab::builder().nodes(1).start();
    let _sink = lab.client().sink(PORT);
    let pods = ["few/one", "few/two"].map(|key| lab.node("node-1").pod(key).start());
    for (timestamps, what, endings) in [
        (true, "with timestamps", &Ending::ALL[..]),
        // A client that closed first waits for a minute itself.
        (false, "without timestamps", &[Ending::ServerCloses, Ending::Reset]),
    ] {
        for pod in &pods {
            restrict(pod, timestamps);
        }
        for &ending in endings {
            load(&lab, &pods, ending, what);
        }
    }
}
