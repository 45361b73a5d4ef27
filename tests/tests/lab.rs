//! The lab itself, without Fairlead: pods wired plainly, so that what fails elsewhere is not the lab's fault.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_tests::generate::{Cluster, Topology};
use fairlead_tests::{Frame, Lab, Load, Ping, Probe, ProbeError, Probes, Via, foreign};

#[test]
fn pods_wired_plainly_reach_each_other() {
    let lab = Lab::builder().nodes(2).plain().start();
    let here = lab.node("node-1").pod("a/client").start();
    let near = lab.node("node-1").pod("a/near").tcp(80).udp(53).start();
    let far = lab.node("node-2").pod("a/far").tcp(80).udp(53).start();
    for server in [&near, &far] {
        for (ip, own) in server.ips().into_iter().zip(here.ips()) {
            for via in Via::BOTH {
                let from = here.via(via);
                for reply in [from.tcp(ip, 80).unwrap(), from.udp(ip, 53).unwrap()] {
                    assert_eq!(reply.server.pod, server.key());
                    assert_eq!(reply.server.node, server.node().name());
                    assert_eq!(reply.server.peer, reply.local);
                    assert_eq!(reply.server.peer.ip(), own);
                    assert_eq!(reply.server.local, reply.peer);
                    assert_eq!(reply.server.local.ip(), ip);
                }
                assert_eq!(from.tcp(ip, 81), Err(ProbeError::Refused));
                assert_eq!(from.udp(ip, 81), Err(ProbeError::Refused));
            }
            assert_eq!(here.ping(&Ping::new(ip)).unwrap().from, ip);
            assert_eq!(here.ping(&Ping::new(ip).payload(1400)).unwrap().size, 1400);
            let probe = Probe::tcp(ip, 80).source_port(40_000).payload(5000).answer_payload(9000).abort();
            let reply = here.probe(&probe).unwrap();
            assert_eq!((reply.server.got, reply.server.pad.len(), reply.local.port()), (5000, 9000, 40_000));
            let mut stays = here.connect(&Probe::tcp(ip, 80)).unwrap();
            assert_eq!(stays.exchange(100, 0).unwrap().server.got, 100);
            assert_eq!(stays.exchange(0, 10).unwrap().local, stays.greeting().local);
            stays.close();
        }
    }
    let expired = here.ping(&Ping::new(far.v4()).ttl(1));
    assert_eq!(expired, Err(ProbeError::Expired([169, 254, 1, 1].into())));
    assert_eq!(
        here.probe(&Probe::udp([172, 18, 0, 77], 9).timeout(Duration::from_millis(900))),
        Err(ProbeError::TimedOut)
    );
    assert_eq!(
        here.probe(&Probe::tcp(far.v4(), 80).ttl(1).timeout(Duration::from_millis(50))),
        Err(ProbeError::Unreachable)
    );
}

#[test]
fn nodes_have_mounts_and_cgroups_of_their_own() {
    let lab = Lab::builder().zones(&["zone-a", "zone-b"]).plain().start();
    let (one, two) = (lab.node("node-1"), lab.node("node-2"));
    for directory in ["/sys/fs/bpf/own", "/run/own", "/etc/own", "/opt/own", "/var/lib/own", "/sys/fs/cgroup/own"] {
        one.must_run(&["mkdir", directory]);
        assert!(!two.run(&["ls", directory]).ok(), "{directory} of one node is seen on the other");
        assert!(!Path::new(directory).exists(), "{directory} of a node is seen on the machine");
    }
    // The node's cgroup is the root that its processes see, and pods' processes are below it.
    let pod = one.pod("a/pod").start();
    for place in [one.vantage(), pod.vantage()] {
        assert_eq!(place.must_run(&["grep", "^0:", "/proc/self/cgroup"]).trim(), "0::/");
        let outside = place.via(Via::Packet).must_run(&["grep", "^0:", "/proc/self/cgroup"]);
        assert!(outside.contains("/outside"), "{outside}");
    }
    assert_eq!(two.must_run(&["hostname"]).trim(), "node-2");
    assert!(one.must_run(&["ls", "/sys/class/net"]).contains("eth0"));
}

#[test]
fn nodes_and_clients_reach_each_other() {
    let lab = Lab::builder().plain().start();
    let server = lab.node("node-3");
    server.serve("kube-system/host", &[6443], &[6443]);
    let far: [IpAddr; 2] = ["192.0.2.100".parse().unwrap(), "2001:db8::100".parse().unwrap()];
    let near: [IpAddr; 2] = ["172.18.0.100".parse().unwrap(), "fd00:172:18::100".parse().unwrap()];
    for (from, own) in [(lab.client(), near), (lab.far_client(), far)] {
        for (ip, own) in [IpAddr::from(server.v4()), server.v6().into()].into_iter().zip(own) {
            assert_eq!(from.tcp(ip, 6443).unwrap().server.peer.ip(), own);
            assert_eq!(from.udp(ip, 6443).unwrap().server.peer.ip(), own);
            assert_eq!(server.ping(&Ping::new(own)).unwrap().from, own);
        }
    }
    assert_eq!(lab.node("node-1").tcp(server.v4(), 6443).unwrap().server.pod, "kube-system/host");
}

#[test]
fn frames_are_seen_and_sent() {
    let lab = Lab::builder().nodes(1).plain().start();
    let one = lab.node("node-1").pod("a/one").start();
    let two = lab.node("node-1").pod("a/two").start();
    let mut wire = two.packets("eth0");
    let is_request = |frame: &Frame| frame.bytes().get(12..14) == Some(&[8, 0]) && frame.bytes().get(34) == Some(&8);
    one.ping(&Ping::new(two.v4())).unwrap();
    let request = wire.wait_for(Duration::from_secs(10), is_request).expect("the request came by");
    assert!(!request.outgoing);
    assert_eq!(request.bytes()[26..30], one.v4().octets());
    // The answer of an earlier request, sent again by hand, arrives as it was sent.
    let mut out = one.packets("eth0");
    one.ping(&Ping::new(two.v4())).unwrap();
    let sent = out.wait_for(Duration::from_secs(10), |frame| frame.outgoing && is_request(frame)).expect("it was sent");
    wire.collect(Duration::from_millis(20), |_| true);
    let mut copy = sent.bytes();
    *copy.last_mut().unwrap() ^= 0xff;
    out.send(&copy);
    let seen = wire.wait_for(Duration::from_secs(10), is_request).expect("the copy came by");
    assert_eq!(seen.bytes()[34..], copy[34..]);
}

#[test]
fn load_is_counted() {
    let lab = Lab::builder().nodes(1).plain().start();
    let client = lab.node("node-1").pod("a/client").start();
    let server = lab.node("node-1").pod("a/server").tcp(80).udp(53).start();
    let (ip, closed) = (server.v4(), 81);
    let load = Load::during(Duration::from_millis(500))
        .short_connections(Probe::tcp(ip, 80), 200)
        .long_connections(Probe::tcp(ip, 80), 5, Duration::from_millis(50))
        .udp(Probe::udp(ip, closed).timeout(Duration::from_millis(900)), 100)
        .dns((ip, 53).into(), "web.shop.svc.cluster.local", 100);
    let mut loading = client.begin(&load);
    loading.goes_on(300);
    let report = loading.end();
    // It goes on until it is ended, which may be later.
    assert!(report.short.attempted >= 100 && report.short.failures() == 0, "{report:?}");
    assert!(report.long.attempted >= 10 && report.long.failures() == 0, "{report:?}");
    assert!(report.short.p50 > Duration::ZERO && report.short.p50 <= report.short.p99, "{report:?}");
    // The kernel limits how many ICMP errors it sends, so some attempts time out.
    assert!(report.udp.failed["refused"] > 0 && report.udp.failures() == report.udp.attempted, "{report:?}");
    // The lab's servers are no DNS servers.
    assert_eq!(report.dns.failed["DNS: this is no answer to the question"], report.dns.attempted, "{report:?}");
    assert!(report.dns.attempted >= 50, "{report:?}");
    assert_eq!(report.failures(), report.udp.attempted + report.dns.attempted);
}

#[test]
fn connections_may_be_silent_half_closed_or_full() {
    let lab = Lab::builder().nodes(1).plain().start();
    let client = lab.node("node-1").pod("a/client").start();
    let server = lab.node("node-1").pod("a/server").tcp(80).start();
    let to = || Probe::tcp(server.v4(), 80);
    let silence = Duration::from_millis(200);
    let load = Load::during(Duration::from_millis(900))
        .idle_connections(to(), 3, silence)
        .uploads(to().payload(256 << 10), 10)
        .half_closed(to(), 3, silence);
    let mut loading = client.begin(&load);
    loading.goes_on(60);
    let report = loading.end();
    assert_eq!(report.failures(), 0, "{report:?}");
    assert!(report.uploads.attempted >= 9, "{report:?}");
    // How many is for the machine to say; none has just been begun.
    assert!(report.idle.attempted >= 3 && report.half_closed.attempted >= 3, "{report:?}");
    assert!(report.half_closed.p50 >= silence, "the server waits: {report:?}");

    let mut refused =
        client.begin(&Load::during(Duration::from_millis(300)).half_closed(Probe::tcp(server.v4(), 81), 1, silence));
    refused.goes_on(1);
    let refused = refused.end();
    assert_eq!(refused.half_closed.first[0].1, "refused", "{refused:?}");
}

#[test]
fn load_may_count_from_when_each_kind_has_succeeded() {
    let lab = Lab::builder().nodes(1).plain().start();
    let client = lab.node("node-1").pod("a/client").start();
    let server = lab.node("node-1").pod("a/server").start();
    let ip = server.v4();
    let load = Load::during(Duration::from_millis(100))
        .short_connections(Probe::tcp(ip, 80), 100)
        .long_connections(Probe::tcp(ip, 80), 2, Duration::from_millis(10))
        .udp(Probe::udp(ip, 53), 100);
    let mut wire = server.packets("eth0");
    let patient = load.clone().once_each_succeeds(Duration::from_secs(60));
    let report = thread::scope(|scope| {
        let report = scope.spawn(|| {
            let mut loading = client.begin(&patient);
            loading.goes_on(200);
            loading.end()
        });
        // TCP, to port 80.
        let is_attempt =
            |frame: &Frame| frame.bytes().get(23) == Some(&6) && frame.bytes().get(36..38) == Some(&[0, 80]);
        wire.wait_for(Duration::from_secs(20), is_attempt).expect("it is tried");
        server.vantage().serve("a/server", &[80], &[53]);
        report.join().unwrap()
    });
    assert!(report.short.attempted > 5 && report.long.attempted > 2 && report.udp.attempted > 5, "{report:?}");
    assert_eq!(report.failures(), 0, "{report:?}");

    let mut loading = client.begin(&load);
    loading.goes_on(100);
    let report = loading.end();
    let count = report.short.attempted + report.long.attempted + report.udp.attempted;
    assert!(count > 100 && report.failures() == 0, "it goes on until it is ended: {report:?}");
}

#[test]
fn a_deleted_pod_is_gone() {
    let lab = Lab::builder().nodes(1).plain().start();
    let node = lab.node("node-1");
    let client = node.pod("a/client").start();
    let server = node.pod("a/server").tcp(80).start();
    let ip = server.v4();
    client.tcp(ip, 80).unwrap();
    server.delete();
    lab.wait_until("its interface has gone with its namespace", || match node.must_run(&["ip", "-o", "link"]) {
        links if links.contains("pod11") => Err(links),
        _ => Ok(()),
    });
    client.tcp(ip, 80).unwrap_err();
}

#[test]
fn processes_end_when_told() {
    let lab = Lab::builder().nodes(1).plain().start();
    let process = lab.node("node-1").spawn("sleeper", &["sh", "-c", "echo $WORD; sleep 1000"], &[("WORD", "hello")]);
    lab.wait_until("it has spoken", || if process.log() == "hello\n" { Ok(()) } else { Err(process.log()) });
    assert_eq!(process.wait(Duration::ZERO), None);
    process.kill(9);
    assert!(process.wait(Duration::from_secs(20)).unwrap().contains("signal: 9"));
    let failed = lab.node("node-1").run_with(&["sh", "-c", "cat; echo no >&2; exit 3"], &[], "input");
    assert_eq!((failed.code, failed.stdout.as_str(), failed.stderr.as_str()), (3, "input", "no\n"));
}

#[test]
fn ready_made_objects_get_the_addresses_of_their_pods() {
    let lab = Lab::builder().nodes(2).plain().start();
    let pods = lab.deploy(
        "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web}
spec:
  nodeName: node-2
  containers: [{name: c, ports: [{containerPort: 8080}]}]
status: {phase: Running, podIP: 10.244.2.200, podIPs: [{ip: 10.244.2.200}, {ip: 'fd00:10:244:2::c8'}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: agent}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: c, ports: [{containerPort: 9100}]}]}
status: {phase: Running, podIP: 172.18.0.11}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.244.2.200], targetRef: {kind: Pod, name: web}}]
ports: [{name: dns, port: 53, protocol: UDP}]
",
        |_| true,
    );
    let web = &pods["shop/web"];
    assert_eq!(pods.len(), 1);
    assert_eq!(lab.client().tcp(lab.node("node-1").v4(), 9100).unwrap().server.pod, "shop/agent");
    let host = lab.node("node-2");
    assert_eq!(host.tcp(web.v4(), 8080).unwrap().server.pod, "shop/web");
    assert_eq!(host.udp(web.v6(), 53).unwrap().server.pod, "shop/web", "a port that a slice names is served");
    let read = |file: &str| fs::read_to_string(lab.objects().directory().join(file)).unwrap();
    let (object, slice) = (read("pod_shop_web.yaml"), read("endpointslice_shop_web-1.yaml"));
    for address in [web.v4().to_string(), web.v6().to_string()] {
        assert!(object.contains(&address), "{object}");
    }
    assert!(slice.contains(&format!("[\"{}\"]", web.v4())), "{slice}");
}

#[test]
fn the_generated_cluster_runs_in_a_lab() {
    let topology = Topology::default();
    let cluster = Cluster::of_test_data(&topology).unwrap();
    let lab = Lab::builder().plain().start();
    for (place, node) in topology.nodes.iter().zip(lab.nodes()) {
        assert_eq!((place.name.as_str(), place.ipv4(), place.ipv6()), (node.name(), node.v4(), node.v6()));
        let [v4, v6] = place.pod_cidrs();
        let object = fs::read_to_string(lab.objects().directory().join(format!("node_{}.yaml", place.name))).unwrap();
        assert!(object.contains(&v4) && object.contains(&v6), "{object}");
    }
    let started = Instant::now();
    let yaml: Vec<String> = cluster.files().unwrap().into_values().collect();
    let pods = lab.deploy(&yaml.join("\n"), |pod| pod["metadata"]["labels"]["k8s-app"] != "kube-dns");
    println!("{} pods in {:?}", pods.len(), started.elapsed());
    let of = |prefix: &str| {
        let pod = pods.iter().find_map(|(key, pod)| key.starts_with(prefix).then_some(pod));
        pod.unwrap_or_else(|| panic!("no pod is named {prefix}…: {:?}", pods.keys()))
    };
    let front = of("sock-shop/front-end-");
    for (prefix, port) in [("sock-shop/catalogue-db-", 3306), ("online-boutique/cartservice-", 7070)] {
        let server = of(prefix);
        for ip in server.ips() {
            assert_eq!(front.tcp(ip, port).unwrap().server.pod, server.key());
        }
    }
}

#[test]
fn labs_do_not_meet() {
    let reply = thread::scope(|scope| {
        let labs: Vec<_> = (0..3)
            .map(|number| {
                scope.spawn(move || {
                    let lab = Lab::builder().nodes(2).plain().start();
                    let client = lab.node("node-1").pod("a/client").start();
                    let server = lab.node("node-2").pod(&format!("lab-{number}/server")).tcp(80).start();
                    client.tcp(server.v4(), 80).unwrap().server.pod
                })
            })
            .collect();
        labs.into_iter().map(|lab| lab.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(reply, ["lab-0/server", "lab-1/server", "lab-2/server"]);
}

#[test]
fn a_lab_that_can_not_begin_leaves_nothing() {
    let owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "labs_do_not_meet", "--nocapture"])
        .env("FAIRLEAD_BIN_DIR", "/nowhere")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = owner.id();
    let output = owner.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("/nowhere/fairlead-lab is not built"), "{said}");
    for number in 0..3 {
        gone_soon(&format!("{pid}-{number}"));
    }
}

/// Set for the processes that the tests below start to kill: the same program, which then makes a lab and waits.
const VICTIM: &str = "FAIRLEAD_LAB_VICTIM";

#[test]
fn a_killed_owner_leaves_nothing() {
    let Some((mut owner, id)) = victim("a_killed_owner_leaves_nothing") else { return };
    assert!(traces(&id).len() > 3, "a lab that lives can be seen: {:?}", traces(&id));
    owner.kill().unwrap();
    owner.wait().unwrap();
    gone_soon(&id);
}

#[test]
fn a_killed_guardian_takes_the_lab_along() {
    let Some((mut owner, id)) = victim("a_killed_guardian_takes_the_lab_along") else { return };
    let guardian = fs::read_to_string(format!("/proc/{0}/task/{0}/children", owner.id())).unwrap();
    let threads = fs::read_dir(format!("/proc/{}/task", owner.id())).unwrap();
    let guardian = threads
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("children")).ok())
        .chain([guardian])
        .find_map(|children| children.split_whitespace().next().map(str::to_owned))
        .expect("the guardian is a child of the owner");
    assert!(Command::new("kill").args(["-9", &guardian]).status().unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(30);
    while traces(&id).iter().any(|trace| trace.starts_with("process")) {
        assert!(Instant::now() < deadline, "still there: {:?}", traces(&id));
        thread::sleep(Duration::from_millis(5));
    }
    // Files and cgroups wait for the next lab.
    drop(Lab::builder().nodes(1).plain().start());
    gone_soon(&id);
    owner.kill().unwrap();
    owner.wait().unwrap();
}

#[test]
fn a_lab_is_the_same_on_a_machine_with_networks_of_its_own() {
    if !foreign::is_here() {
        // All tests of this file, this one with what is below; but for the one that takes longest.
        let ended = foreign::run(&std::env::current_exe().unwrap(), &["--skip", "the_generated_cluster"]);
        assert!(ended.success(), "there tests fail: {ended}");
        return;
    }
    for place in foreign::PLACES {
        assert!(Path::new(place).join(foreign::FOREIGN).exists(), "the machine has something in {place}");
    }
    let lab = Lab::builder().nodes(1).without_agents().start();
    let node = lab.node("node-1");
    let script = "find /etc /opt /run /var/lib -name '*-foreign.*'; grep foreign /etc/resolv.conf; umask
                  find /usr/lib/systemd/network /usr/lib/NetworkManager/conf.d -type f 2>/dev/null
                  env | grep -E 'KUBERNETES|NODE_NAME|PROXY|RUST_LOG|FAIRLEAD_OBJECTS'";
    assert_eq!(node.run(&["sh", "-c", script]).stdout, "0022\n");
    let mounts = node.must_run(&["cat", "/proc/self/mounts"]);
    let cgroups: Vec<_> = mounts.lines().filter(|line| line.contains(" cgroup")).collect();
    assert!(cgroups.len() == 1 && cgroups[0].contains(" /sys/fs/cgroup cgroup2 "), "{cgroups:?}");

    let own = "mkdir -p /etc/cni/net.d /opt/cni/bin && echo own >/etc/cni/net.d/87-foreign.conflist";
    node.must_run(&["sh", "-c", own]);
    let theirs = fs::read_to_string("/etc/cni/net.d/87-foreign.conflist").unwrap();
    assert!(theirs.contains("foreign"), "the machine keeps its own");
    let elsewhere = node.run(&["mkdir", "/usr/of-a-lab"]);
    assert!(elsewhere.stderr.contains("Read-only"), "{elsewhere:?}");
}

/// Starts an owner of a lab in a process of its own; nothing when this is that process, at its end.
fn victim(test: &str) -> Option<(Child, String)> {
    if std::env::var_os(VICTIM).is_some() {
        let lab = Lab::builder().nodes(2).plain().start();
        lab.node("node-1").pod("a/pod").tcp(80).start();
        println!("lab {}", lab.id());
        // It is killed long before; if nobody does, it ends all the same.
        thread::sleep(Duration::from_secs(60));
        return None;
    }
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let id = lines.map_while(Result::ok).find_map(|line| Some(line.split_once("lab ")?.1.trim().to_owned()));
    Some((owner, id.expect("the owner says which lab it has")))
}

fn gone_soon(id: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !traces(id).is_empty() {
        assert!(Instant::now() < deadline, "still there: {:?}", traces(id));
        thread::sleep(Duration::from_millis(5));
    }
}

/// What can be seen of a lab: its processes, files, cgroups and mounts.
fn traces(id: &str) -> Vec<String> {
    let name = format!("fairlead-lab-{id}");
    let mut traces = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command.split('\0').any(|argument| argument == id) {
            traces.push(format!("process {} {command:?}", entry.file_name().display()));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchies =
        mounts.lines().filter(|line| line.contains(" cgroup2 ")).map(|line| line.split(' ').nth(1).unwrap());
    traces.extend(hierarchies.map(|at| format!("{at}/{name}")).filter(|path| Path::new(path).exists()));
    traces.extend(mounts.lines().filter(|line| line.contains(&name)).map(|line| format!("mount {line}")));
    traces.extend(std::env::temp_dir().join(&name).exists().then(|| "its directory".to_owned()));
    traces
}

#[test]
fn a_kept_lab_is_entered_and_stopped() {
    let mut lab = Lab::builder().nodes(1).plain().start();
    let pod = lab.node("node-1").pod("a/pod").start();
    let (id, ip) = (lab.id().to_owned(), pod.v4().to_string());
    lab.keep();
    drop(lab);
    let run = |arguments: &[&str]| {
        let output = Command::new(fairlead_tests::binary("fairlead-lab").unwrap()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["list"]).lines().any(|line| line == id));
    assert_eq!(run(&["enter", &id, "node-1", "--", "cat", "/proc/self/cgroup"]).lines().last(), Some("0::/"));
    assert_eq!(run(&["enter", &id, "client", "--", "hostname"]).trim(), "client");
    let addresses = run(&["enter", &id, "node-1", "--pod", "a/pod", "--", "ip", "-o", "addr"]);
    assert!(addresses.contains(&ip), "{addresses}");
    run(&["stop", &id]);
    gone_soon(&id);
}
