//! What the attacks share: a cluster, policies, and frames that are told from others by what they carry.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use fairlead_tests::frames::ends;
use fairlead_tests::{Frame, Lab, Packets, Pod, Probe, ProbeError, Probes};
use serde_json::{Value, json};

/// How long an answer is waited for where none may come: far longer than one takes.
pub(crate) const SILENCE: Duration = Duration::from_millis(150);

/// What attackers' packets carry.
pub(crate) const MARK: &[u8] = b"smuggled by a hostile test";

/// The cluster of the attacks: two nodes, and a host outside that knows the way to pods. It ends with the process of the
/// tests.
pub(crate) fn world() -> &'static Lab {
    static WORLD: OnceLock<Lab> = OnceLock::new();
    WORLD.get_or_init(|| {
        let lab = cluster();
        // Agents that take tables over pick up no connections.
        for node in lab.nodes() {
            node.agent().stop();
            node.start_agent();
        }
        lab
    })
}

/// The same shortly after its tables were made.
pub(crate) fn cluster() -> Lab {
    let lab = Lab::builder().nodes(2).start();
    for (number, node) in (1..).zip(lab.nodes()) {
        let pods = [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")];
        for (pods, by) in pods.iter().zip(node.ips()) {
            lab.client().must_run(&["ip", "route", "add", pods, "via", &by.to_string()]);
        }
    }
    lab.client().serve("outside/server", &[80], &[53]);
    lab
}

/// The addresses of the host outside.
pub(crate) fn outside() -> [IpAddr; 2] {
    ["172.18.0.100", "fd00:172:18::100"].map(|ip| ip.parse().expect("it is an address"))
}

/// Applies a policy for all pods of a namespace with a label `role`.
pub(crate) fn policy(lab: &Lab, namespace: &str, role: &str, spec: &Value) {
    let mut spec = spec.clone();
    spec["podSelector"] = json!({"matchLabels": {"role": role}});
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": role},
        "spec": spec,
    });
    lab.apply(&policy.to_string());
}

/// Waits until a pod's port of both families gives no answer to anybody who asks from there.
#[track_caller]
pub(crate) fn wait_until_silent(lab: &Lab, from: &impl Probes, to: &Pod, port: u16) {
    for ip in to.ips() {
        let probe = Probe::tcp(ip, port).timeout(SILENCE);
        lab.wait_until(&format!("{} is silent at {ip}", to.key()), || match from.probe(&probe) {
            Err(ProbeError::TimedOut) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

/// Whether a frame comes in and carries what attackers send.
pub(crate) fn smuggled(frame: &Frame) -> bool {
    carries(frame, MARK)
}

/// Whether a frame comes in and carries these bytes.
pub(crate) fn carries(frame: &Frame, mark: &[u8]) -> bool {
    !frame.outgoing && frame.bytes().windows(mark.len()).any(|part| part == mark)
}

/// Whether a frame comes in between two addresses.
pub(crate) fn between(frame: &Frame, from: IpAddr, to: IpAddr) -> bool {
    !frame.outgoing && ends(&frame.bytes()) == Some((from, to))
}

/// Nothing that attackers sent has come in, or comes in yet.
#[track_caller]
pub(crate) fn assert_nothing_smuggled(packets: &mut Packets, what: &str) {
    let frames = packets.collect(Duration::from_millis(60), smuggled);
    assert!(frames.is_empty(), "{what}: {} frames arrived, the first is {:x?}", frames.len(), frames[0].bytes());
}
