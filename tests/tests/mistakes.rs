//! Bad objects at a running agent: it says what is wrong and what to do, and everything else goes on.

use std::fs;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use fairlead_tests::{Lab, Pod, Probe, ProbeError, Probes, ServiceManifest, binary};
use serde_json::Value;

/// The lab of all tests, which run one after the other.
struct Stage {
    lab: Lab,
    client: Pod,
    server: Pod,
}

fn stage() -> MutexGuard<'static, Stage> {
    static STAGE: OnceLock<Mutex<Stage>> = OnceLock::new();
    let make = || {
        let lab = Lab::builder().nodes(1).start();
        let client = lab.node("node-1").pod("shop/client").label("app", "client").start();
        let server = lab.node("node-1").pod("shop/server").label("app", "server").tcp(80).start();
        Mutex::new(Stage { lab, client, server })
    };
    STAGE.get_or_init(make).lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    fn mistakes(&self) -> Vec<(String, String)> {
        let status = self.lab.node("node-1").fairlead(&["status", "-o", "json"]);
        let status: Value = serde_json::from_str(&status.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mistakes = status["mistakes"].as_array().unwrap().iter();
        mistakes.map(|mistake| (text(&mistake["object"]), text(&mistake["reason"]))).collect()
    }

    /// Waits until the agent says something about a file, in its status and in its log, and gives it.
    #[track_caller]
    fn complaint(&self, file: &str) -> String {
        let about = |mistakes: Vec<(String, String)>| {
            let found = mistakes.iter().find(|(origin, _)| origin.contains(file)).map(|(_, reason)| reason.clone());
            found.ok_or(mistakes)
        };
        let reason = self.lab.wait_until(&format!("{file} is complained about"), || about(self.mistakes()));
        let log = self.lab.node("node-1").agent().log();
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(file)), "{file} is in no warning");
        reason
    }

    /// Waits until nothing is said about a file any more.
    #[track_caller]
    fn no_complaint(&self, file: &str) {
        self.lab.wait_until(&format!("nothing is said about {file} any more"), || match self.mistakes() {
            mistakes if mistakes.iter().any(|(origin, _)| origin.contains(file)) => Err(mistakes),
            _ => Ok(()),
        });
    }

    /// A change of objects after the mistake comes into force.
    #[track_caller]
    fn goes_on(&self) {
        let web = ServiceManifest::new("shop/goes-on").ips(&["10.96.9.9", "fd00:10:96::9:9"]).tcp("http", 80, 80);
        self.lab.apply(&web.clone().endpoint(&self.server).yaml());
        for ip in ["10.96.9.9", "fd00:10:96::9:9"] {
            let ip: std::net::IpAddr = ip.parse().unwrap();
            self.lab.wait_until("a new service answers", || self.client.tcp(ip, 80));
        }
        self.lab.apply(&web.yaml());
        self.lab.wait_until("a service without endpoints refuses", || match self.client.tcp([10, 96, 9, 9], 80) {
            Err(ProbeError::Refused) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn a_file_that_is_no_yaml_is_named() {
    let stage = stage();
    stage.lab.objects().write("broken.yaml", "kind: Service\n\tmetadata: {{{");
    let reason = stage.complaint("broken.yaml");
    assert!(reason.len() > 10, "{reason}");
    stage.goes_on();
    stage.lab.objects().remove("broken.yaml");
    stage.no_complaint("broken.yaml");
}

#[test]
fn an_object_that_can_not_be_read_keeps_its_last_form() {
    let stage = stage();
    let web = ServiceManifest::new("shop/kept").ips(&["10.96.2.1"]).tcp("http", 80, 80).endpoint(&stage.server);
    stage.lab.apply(&web.yaml());
    stage.lab.wait_until("the service answers", || stage.client.tcp([10, 96, 2, 1], 80));
    stage.lab.objects().write(
        "service_shop_kept.yaml",
        "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: kept}, spec: {clusterIP: 10.96.2.1, ports: many}}",
    );
    let reason = stage.complaint("service_shop_kept.yaml");
    assert!(reason.contains("ports"), "{reason}");
    stage.goes_on();
    stage.client.tcp([10, 96, 2, 1], 80).unwrap();
    stage.lab.apply(&web.yaml());
    stage.no_complaint("service_shop_kept.yaml");
}

#[test]
fn an_object_in_two_files_counts_once() {
    let stage = stage();
    let first = ServiceManifest::new("shop/twice").ips(&["10.96.3.1"]).tcp("http", 80, 80).endpoint(&stage.server);
    stage.lab.apply(&first.yaml());
    stage.lab.wait_until("the service answers", || stage.client.tcp([10, 96, 3, 1], 80));
    let second = "{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: twice}, spec: {clusterIP: 10.96.3.2, \
                  clusterIPs: [10.96.3.2], ports: [{name: http, port: 80}]}}";
    stage.lab.objects().write("zz-second.yaml", second);
    let reason = stage.complaint("zz-second.yaml");
    assert!(reason.contains("service_shop_twice.yaml") && reason.contains("remove"), "{reason}");
    stage.goes_on();
    stage.client.tcp([10, 96, 3, 1], 80).unwrap();
    stage.client.tcp([10, 96, 3, 2], 80).unwrap_err();
    stage.lab.objects().remove("zz-second.yaml");
    stage.no_complaint("zz-second.yaml");
}

#[test]
fn an_endpoint_slice_of_nonsense_harms_no_other() {
    let stage = stage();
    let web = ServiceManifest::new("shop/mixed").ips(&["10.96.4.1"]).tcp("http", 80, 80).endpoint(&stage.server);
    stage.lab.apply(&web.yaml());
    stage.lab.objects().write(
        "nonsense.yaml",
        "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {namespace: shop, name: nonsense, labels: \
         {kubernetes.io/service-name: mixed}}, addressType: IPv4, endpoints: [{addresses: [not.an.address]}, \
         {addresses: [999.1.1.1]}], ports: [{name: http, port: 80}]}",
    );
    let reason = stage.complaint("nonsense.yaml");
    assert!(reason.contains("address"), "{reason}");
    stage.goes_on();
    let spread =
        stage.lab.wait_until("the good slice serves", || stage.client.spread(&Probe::tcp([10, 96, 4, 1], 80), 8));
    assert_eq!(spread.len(), 1, "{spread:?}");
    stage.lab.objects().remove("nonsense.yaml");
    stage.no_complaint("nonsense.yaml");
}

#[test]
fn p46_a_policy_with_an_invalid_selector_fails_closed() {
    let stage = stage();
    let policy = |spec: &str| {
        let metadata = "metadata: {namespace: shop, name: selector}";
        format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, {metadata}, spec: {{{spec}}}}}")
    };
    let reaches = |is_open: bool| {
        for ip in stage.server.ips() {
            let probe = Probe::tcp(ip, 80).timeout(Duration::from_millis(200));
            let words = if is_open { "the server is open" } else { "the policy lets nobody in" };
            stage.lab.wait_until(words, || match stage.client.probe(&probe) {
                Err(ProbeError::TimedOut) if !is_open => Ok(()),
                Ok(_) if is_open => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    };
    let server = "podSelector: {matchLabels: {app: server}}";
    let unreadable =
        |value: &str| format!("{{matchExpressions: [{{key: app, operator: Sometimes, values: [{value}]}}]}}");
    // One whose peers can't be read, one whose own pods can't, and that in the place of one that was in force.
    let of_peers = format!("{server}, ingress: [{{from: [{{podSelector: {}}}]}}]", unreadable("client"));
    let of_pods = format!("podSelector: {}, ingress: [{{}}]", unreadable("server"));
    for (before, bad) in [(None, of_peers), (None, of_pods.clone()), (Some(format!("{server}, ingress: []")), of_pods)]
    {
        if let Some(before) = before {
            stage.lab.objects().write("selector.yaml", &policy(&before));
            reaches(false);
        }
        stage.lab.objects().write("selector.yaml", &policy(&bad));
        let reason = stage.complaint("selector.yaml");
        assert!(reason.contains("Sometimes") || reason.contains("operator"), "{reason}");
        reaches(false);
        stage.lab.objects().remove("selector.yaml");
        stage.no_complaint("selector.yaml");
        reaches(true);
    }
    stage.goes_on();
}

#[test]
fn garbage_on_a_socket_of_the_agent_disturbs_nothing() {
    let stage = stage();
    let node = stage.lab.node("node-1");
    let lab = binary("fairlead-lab").unwrap();
    let lab = lab.to_str().unwrap();
    for socket in ["/run/fairlead/cni.sock", "/run/fairlead/agent.sock"] {
        for (garbage, times) in [("", "1"), ("{\n", "1"), ("\u{ff}", "131072")] {
            node.must_run(&[lab, "say", socket, garbage, "--times", times]);
        }
        let answer = node.must_run(&[lab, "say", socket, "nonsense\n"]);
        assert!(!answer.trim().is_empty(), "{socket} says nothing to nonsense");
    }
    assert!(node.fairlead(&["status"]).ok());
    stage.goes_on();
    node.pod("shop/after-garbage").start().delete();
}

#[test]
fn manifests_with_real_mistakes_disturb_nothing() {
    let stage = stage();
    let folder = fairlead_tree::path("tests/data/mistakes").unwrap();
    let mut written = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = format!("mistake-{}", path.file_name().unwrap().to_string_lossy());
            stage.lab.objects().write(&file, &fs::read_to_string(&path).unwrap());
            written.push(file);
        }
    }
    assert!(written.len() >= 5);
    stage.goes_on();
    for file in &written {
        stage.lab.objects().remove(file);
    }
    stage.goes_on();
    let status = stage.lab.node("node-1").fairlead(&["status"]);
    assert!(status.ok() && status.stdout.contains("ready"), "{status:?}");
}
