//! What `kubectl apply -f manifests/install.yaml` brings to a cluster, read as the API server reads it; overlays and the Helm
//! chart, rendered.

mod chart;
mod helm;
mod kustomize;
mod monitoring;
mod overlays;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Service, ServiceAccount, Volume};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read(name: &str) -> String {
    let path = fairlead_tree::path("manifests").unwrap().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn documents() -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(&read("install.yaml")).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// Every object of a type. A field that the type does not have is a mistake, and so is one that is written otherwise
/// than the API server would write it.
fn all<T: DeserializeOwned + Serialize + k8s_openapi::Resource>() -> Vec<T> {
    let of_type = documents().into_iter().filter(|d| d["kind"] == T::KIND && d["apiVersion"] == T::API_VERSION);
    let objects = of_type.map(|document| {
        let object: T = serde_json::from_value(document.clone()).unwrap_or_else(|error| panic!("{error}: {document}"));
        assert_eq!(serde_json::to_value(&object).unwrap(), document, "an unknown field");
        object
    });
    objects.collect()
}

fn daemon_sets() -> BTreeMap<String, DaemonSet> {
    all::<DaemonSet>().into_iter().map(|set| (set.metadata.name.clone().unwrap(), set)).collect()
}

fn pod(set: &DaemonSet) -> &PodSpec {
    set.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn labels(set: &DaemonSet) -> &BTreeMap<String, String> {
    set.spec.as_ref().unwrap().template.metadata.as_ref().unwrap().labels.as_ref().unwrap()
}

fn containers(pod: &PodSpec) -> impl Iterator<Item = &Container> {
    pod.init_containers.iter().flatten().chain(&pod.containers)
}

#[test]
fn every_document_is_an_object_of_a_known_type() {
    let known = all::<ServiceAccount>().len()
        + all::<ClusterRole>().len()
        + all::<ClusterRoleBinding>().len()
        + all::<ConfigMap>().len()
        + all::<Service>().len()
        + all::<DaemonSet>().len();
    assert_eq!(known, documents().len());
}

#[test]
fn the_image_is_that_of_this_version() {
    let image = concat!("localhost/fairlead:", env!("CARGO_PKG_VERSION"));
    for set in daemon_sets().values() {
        for container in containers(pod(set)) {
            assert_eq!(container.image.as_deref(), Some(image), "{}", container.name);
            // Nobody has it but the node.
            assert_eq!(container.image_pull_policy.as_deref(), Some("IfNotPresent"));
        }
    }
    assert!(read("Containerfile").contains(&format!("--tag {image} ")));
}

#[test]
fn only_what_installs_and_keeps_is_privileged() {
    let sets = daemon_sets();
    let agent = pod(&sets["fairlead"]);
    let privileged = [&agent.init_containers.as_ref().unwrap()[0], &agent.containers[1]];
    assert_eq!(privileged.map(|container| container.name.as_str()), ["install", "keep"]);
    for container in privileged {
        assert_eq!(container.security_context.as_ref().unwrap().privileged, Some(true));
        assert_eq!((&container.ports, &container.liveness_probe), (&None, &None), "nobody asks {}", container.name);
    }
    for set in sets.values() {
        for container in pod(set).containers.iter().filter(|container| container.name != "keep") {
            let context = container.security_context.as_ref().unwrap();
            assert_ne!(context.privileged, Some(true), "{}", container.name);
            assert_eq!(context.allow_privilege_escalation, Some(false), "{}", container.name);
            let dropped = context.capabilities.as_ref().unwrap().drop.as_ref().unwrap();
            assert_eq!(dropped, &["ALL"], "{}", container.name);
        }
        for container in containers(pod(set)) {
            let read_only = container.security_context.as_ref().unwrap().read_only_root_filesystem;
            assert_eq!(read_only, Some(true), "{}", container.name);
            assert!(container.resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("memory"));
        }
    }
}

#[test]
fn nothing_may_be_written_but_events() {
    let roles = all::<ClusterRole>();
    for rule in roles.iter().flat_map(|role| role.rules.iter().flatten()) {
        let resources = rule.resources.as_ref().unwrap();
        let allowed: &[&str] = match resources.as_slice() {
            [one] if one == "events" => &["create", "patch"],
            _ => &["list", "watch"],
        };
        assert_eq!(rule.verbs, allowed, "{resources:?}");
        assert!(!resources.iter().any(|resource| resource == "*" || resource == "secrets"), "{resources:?}");
        assert!(!rule.api_groups.iter().flatten().any(|group| group == "*"));
    }
}

/// The definitions are upstream's, and a cluster gets them only if asked.
#[test]
fn p66_definitions_of_cluster_policies_are_components_and_serve_what_is_read() {
    for channel in ["cluster-network-policy", "cluster-network-policy-experimental"] {
        let crd: Value = serde_saphyr::from_str(&read(&format!("components/{channel}/crd.yaml"))).unwrap();
        let versions = crd["spec"]["versions"].as_array().unwrap();
        let served: BTreeSet<String> = versions
            .iter()
            .filter(|version| version["served"] == true)
            .map(|version| format!("{}/{}", crd["spec"]["group"].as_str().unwrap(), version["name"].as_str().unwrap()))
            .collect();
        let read_in = fairlead_objects::Kind::ClusterNetworkPolicy.api_versions();
        assert_eq!(served, read_in.iter().map(ToString::to_string).collect(), "{channel}");
        let is_experimental = crd["metadata"]["annotations"]["policy.networking.k8s.io/channel"] == "experimental";
        assert_eq!(is_experimental, channel.ends_with("experimental"));
        let peer = &versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["egress"]["items"];
        let has_nodes = !peer["properties"]["to"]["items"]["properties"]["nodes"].is_null();
        assert_eq!(has_nodes, is_experimental, "{channel}");
    }
    assert!(!read("install.yaml").contains("CustomResourceDefinition"));
}

/// What one overlay gives beside the base is one verb, and it is what that asks for.
#[test]
fn the_overlay_for_clouds_may_write_the_status_of_nodes_and_nothing_else() {
    let text = read("overlays/cloud/node-status-rbac.yaml");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let [role, binding] = objects.as_slice() else { panic!("{text}") };
    let role: ClusterRole = serde_json::from_value(role.clone()).unwrap();
    let rules = role.rules.unwrap();
    let [rule] = rules.as_slice() else { panic!("{rules:?}") };
    assert_eq!((&rule.resources, &rule.verbs), (&Some(vec!["nodes/status".to_owned()]), &vec!["patch".to_owned()]));
    let binding: ClusterRoleBinding = serde_json::from_value(binding.clone()).unwrap();
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let account = binding.subjects.unwrap().remove(0);
    assert!(all::<ServiceAccount>().iter().any(|known| known.metadata.name.as_ref() == Some(&account.name)));
    // The flag goes where flags are.
    let overlay: Value = serde_saphyr::from_str(&read("overlays/cloud/kustomization.yaml")).unwrap();
    let patch: Vec<Value> = serde_saphyr::from_str(overlay["patches"][0]["patch"].as_str().unwrap()).unwrap();
    assert_eq!(patch[0]["path"], "/spec/template/spec/containers/0/command/2");
    let mut command = pod(&daemon_sets()["fairlead"]).containers[0].command.clone().unwrap();
    command.insert(2, patch[0]["value"].as_str().unwrap().to_owned());
    assert_eq!(command[1..3], ["agent", "--clear-network-unavailable"]);
    assert!(command[3].starts_with("--"), "it parts no flag from its value: {command:?}");
}

#[test]
fn every_pod_has_an_account_with_a_role() {
    let accounts: BTreeSet<_> = all::<ServiceAccount>().into_iter().map(|account| account.metadata.name).collect();
    let roles: BTreeSet<_> = all::<ClusterRole>().into_iter().filter_map(|role| role.metadata.name).collect();
    for set in daemon_sets().values() {
        assert!(accounts.contains(&pod(set).service_account_name));
    }
    for binding in all::<ClusterRoleBinding>() {
        assert!(roles.contains(&binding.role_ref.name));
        for subject in binding.subjects.unwrap() {
            assert!(accounts.contains(&Some(subject.name)));
            assert_eq!(subject.namespace.as_deref(), Some("kube-system"));
        }
    }
}

#[test]
fn selectors_match_their_own_pods_only() {
    let sets = daemon_sets();
    let selects = |selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>| {
        selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    };
    let core_dns = BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]);
    for (name, set) in &sets {
        let selector = set.spec.as_ref().unwrap().selector.match_labels.as_ref().unwrap();
        for (other, candidate) in &sets {
            assert_eq!(selects(selector, labels(candidate)), name == other, "{name} and the pods of {other}");
        }
        assert!(!selects(selector, &core_dns), "{name} and the pods of CoreDNS");
    }
    let services = all::<Service>();
    let [service] = services.as_slice() else { panic!("one Service") };
    let selector = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
    assert!(selects(selector, labels(&sets["fairlead-dns"])) && selects(selector, &core_dns));
    assert!(!selects(selector, labels(&sets["fairlead"])));
}

#[test]
fn the_dns_service_keeps_its_address_and_leads_to_ports_that_are_there() {
    let services = all::<Service>();
    let spec = services[0].spec.as_ref().unwrap();
    assert_eq!((&spec.cluster_ip, &spec.cluster_ips, &spec.ip_family_policy), (&None, &None, &None));
    assert_eq!(spec.traffic_distribution.as_deref(), Some("PreferSameNode"));
    let sets = daemon_sets();
    let container = &pod(&sets["fairlead-dns"]).containers[0];
    let open: BTreeSet<_> =
        container.ports.iter().flatten().map(|port| (port.container_port, port.protocol.clone())).collect();
    for port in spec.ports.iter().flatten() {
        let Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(target)) = port.target_port else {
            panic!("{:?}", port.target_port)
        };
        assert!(open.contains(&(target, port.protocol.clone())), "{port:?}");
    }
}

#[test]
fn every_volume_is_there_and_used() {
    for set in daemon_sets().values() {
        let pod = pod(set);
        let there: BTreeSet<_> = pod.volumes.iter().flatten().map(|volume| volume.name.clone()).collect();
        let mounts = containers(pod).flat_map(|container| container.volume_mounts.iter().flatten());
        let used: BTreeSet<_> = mounts.map(|mount| mount.name.clone()).collect();
        assert_eq!(there, used);
    }
}

#[test]
fn the_agent_has_no_sight_of_kubelets_credentials() {
    let sets = daemon_sets();
    let agent = &pod(&sets["fairlead"]).containers[0];
    let mounts: BTreeSet<_> = agent.volume_mounts.iter().flatten().map(|mount| mount.name.as_str()).collect();
    assert_eq!(mounts, BTreeSet::from(["bpffs", "cgroup", "cni-conf", "config", "proc-sys-net", "run"]));
}

/// What it keeps is what is installed, at the same paths. It sees the node's bpf file system come and go by the directory above.
#[test]
fn the_keeper_has_what_the_init_container_has() {
    let sets = daemon_sets();
    let agent = pod(&sets["fairlead"]);
    let (install, keep) = (&agent.init_containers.as_ref().unwrap()[0], &agent.containers[1]);
    let mounts = |container: &Container| {
        let mounts = container.volume_mounts.iter().flatten();
        mounts.map(|mount| (mount.name.clone(), mount.clone())).collect::<BTreeMap<_, _>>()
    };
    let (of_install, of_keep) = (mounts(install), mounts(keep));
    for name in ["cni-bin", "config", "kubernetes", "proc-sys-net", "run"] {
        assert_eq!(of_install[name], of_keep[name]);
    }
    let sys_fs = &of_keep["sys-fs"];
    assert_eq!(sys_fs.mount_propagation.as_deref(), Some("Bidirectional"));
    assert_ne!(sys_fs.mount_path, "/sys/fs", "the runtime mounts the container's cgroup below that");
    let volume = agent.volumes.iter().flatten().find(|volume| volume.name == "sys-fs").unwrap();
    let bpffs = agent.volumes.iter().flatten().find(|volume| volume.name == "bpffs").unwrap();
    let path = |volume: &Volume| volume.host_path.as_ref().unwrap().path.clone();
    assert_eq!(path(bpffs), format!("{}/bpf", path(volume)));
    let command = keep.command.as_ref().unwrap().join(" ");
    assert!(command.contains(&format!("--bpffs {}/bpf/fairlead", sys_fs.mount_path)), "{command}");
}

/// The settings files of a ConfigMap.
fn settings_of(set: &str) -> BTreeMap<String, String> {
    let map = all::<ConfigMap>().into_iter().find(|map| map.metadata.name.as_deref() == Some(set));
    map.unwrap_or_else(|| panic!("no ConfigMap {set}")).data.unwrap()
}

#[test]
fn each_pod_mounts_its_own_settings() {
    for (set, file) in [("fairlead", "fairlead.yaml"), ("fairlead-dns", "dns.yaml")] {
        let sets = daemon_sets();
        let pod = pod(&sets[set]);
        let source = pod.volumes.iter().flatten().find_map(|volume| volume.config_map.as_ref()).unwrap();
        assert_eq!(source.name, set);
        let keys: Vec<_> = source.items.iter().flatten().map(|item| item.key.as_str()).collect();
        assert_eq!(keys, [file]);
        assert_eq!(settings_of(set).keys().collect::<Vec<_>>(), [file]);
        let command = pod.containers[0].command.as_ref().unwrap();
        assert_eq!(command.last().unwrap(), &format!("/etc/fairlead/{file}"));
        // What is installed depends on it too, and a mistake in it is found before anything is changed.
        for container in containers(pod) {
            assert_eq!(container.command.as_ref().unwrap().last(), command.last());
        }
    }
}

/// Settings with every default that is shown in a comment put in force.
fn uncommented(settings: &str) -> String {
    // A sentence has one space before it, a setting none, or as many as it is deep.
    let is_setting =
        |line: &str| line.strip_prefix('#').is_some_and(|line| !line.starts_with(' ') || line.starts_with("  "));
    settings.lines().map(|line| if is_setting(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

/// What a program says of a settings file before it does anything: `flags` have it end with this complaint.
fn complaint(program: &str, settings: &str, flags: &[&str]) -> String {
    let name =
        format!("fairlead-settings-{}-{}", std::process::id(), std::thread::current().name().unwrap_or_default());
    let path = std::env::temp_dir().join(name);
    fs::write(&path, settings).unwrap();
    let program = fairlead_tests::binary(program).unwrap();
    let output = Command::new(program).args(flags).arg("--config").arg(&path).output().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// The files of the ConfigMap as they are and with all defaults in force are what the programs read.
#[test]
fn settings_and_the_comments_among_them_are_known_to_the_programs() {
    // A directory and an address that can't be, so that nothing is changed here.
    let agent = ["agent", "--node=n", "--objects=/", "--run-dir=/dev/null/run"];
    let dns = ["--objects=/", "--listen=192.0.2.1:53"];
    for (file, program, flags, end) in [
        ("fairlead.yaml", "fairlead", agent.as_slice(), "/dev/null/run"),
        ("dns.yaml", "fairlead-dns", dns.as_slice(), "192.0.2.1:53"),
    ] {
        let text = &settings_of(program)[file];
        let full = uncommented(text);
        assert!(serde_saphyr::from_str::<Value>(&full).unwrap().as_object().unwrap().len() > 2, "{full}");
        for settings in [text, &full] {
            let said = complaint(program, settings, flags);
            assert!(said.contains(end) && !said.contains("settings-"), "{said}");
        }
        let said = complaint(program, &format!("{full}\nnoSuchKey: 1\n"), flags);
        assert!(said.contains("noSuchKey") && !said.contains(end), "{said}");
    }
}

/// What removes has what installs had.
#[test]
fn removal_runs_on_every_node_and_sees_what_was_installed() {
    let document: Value = serde_saphyr::from_str(&read("remove/remove.yaml")).unwrap();
    let remove: DaemonSet = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(serde_json::to_value(&remove).unwrap(), document, "an unknown field");
    let sets = daemon_sets();
    let (agent, pod) = (pod(&sets["fairlead"]), pod(&remove));
    assert_eq!((&pod.tolerations, &pod.node_selector), (&agent.tolerations, &agent.node_selector));
    assert_eq!((pod.host_network, pod.automount_service_account_token), (Some(true), Some(false)));
    let image = |pod: &PodSpec| containers(pod).map(|container| container.image.clone()).collect::<BTreeSet<_>>();
    assert_eq!(image(pod), image(agent));
    let paths = |pod: &PodSpec| {
        let volumes = pod.volumes.iter().flatten();
        volumes.filter_map(|volume| Some(volume.host_path.as_ref()?.path.clone())).collect::<BTreeSet<_>>()
    };
    let seen = paths(pod);
    // Cgroups lose their programs with the pins, and kubelet's files were only read.
    // Of /sys/fs what is mounted at /sys/fs/bpf matters.
    assert!(seen.contains("/sys/fs/bpf"));
    let read_only = ["/sys/fs/cgroup", "/sys/fs", "/etc/kubernetes"];
    for path in paths(agent).iter().filter(|path| !read_only.contains(&path.as_str())) {
        let above = seen.iter().any(|seen| Path::new(path).starts_with(seen));
        assert!(above, "{path} is not seen when Fairlead is removed");
    }
}

/// One label takes the agent off a node, and what says so names that one. What removes runs everywhere.
#[test]
fn c51_a_label_takes_the_agent_off_a_node() {
    let sets = daemon_sets();
    let affinity = serde_json::to_value(pod(&sets["fairlead"]).affinity.as_ref().unwrap()).unwrap();
    let terms = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(
        terms,
        &serde_json::json!([{"matchExpressions": [{"key": "fairlead.io/off", "operator": "DoesNotExist"}]}])
    );
    assert_eq!(pod(&sets["fairlead-dns"]).affinity, None);
    assert!(!read("remove/remove.yaml").contains("affinity"));
    for name in ["README.md", "book/src/operate/migrate.md", "book/src/operate/upgrade.md", "../agent/src/cli/node.rs"]
    {
        assert!(read(name).contains("fairlead.io/off"), "{name} does not name the label");
    }
}
