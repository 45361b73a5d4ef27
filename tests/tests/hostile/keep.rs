//! What others on the node unmount and remove, where the agent may not put it back: `fairlead install --keep` does.
//!
//! Agents run here as containers of the DaemonSet do: with its capabilities, and a mount namespace as a runtime makes it.

use std::time::Duration;

use fairlead_tests::{Agent, Connection, Node, Probe, Probes, Process, binary};

use crate::unhook::{Stage, repaired_after, status};

const PORT: u16 = 80;

/// How long it may take until something is back that the kernel tells of.
const TOLD: Duration = Duration::from_secs(6);

/// The same of what is looked at every ten seconds.
const FOUND: Duration = Duration::from_secs(15);

/// What a keeper says once it keeps.
const BEGUN: &str = "keeping what is installed";

const KUBELET: &str = "/etc/kubernetes/kubelet.conf";

/// A node with a keeper, and an agent in a container that has taken over from the lab's own.
struct Kept {
    stage: Stage,
    keeper: Process,
}

impl Kept {
    fn new() -> Self {
        let kept = Self::without_agent();
        kept.start_agent();
        kept
    }

    fn without_agent() -> Self {
        let stage = Stage::new();
        let node = stage.node();
        node.share_mounts();
        write_kubeconfig(node, "https://172.18.0.11:6443");
        node.agent().kill9();
        let keeper = node.spawn_keeper("keeper");
        let kept = Self { stage, keeper };
        kept.wait_for_log(BEGUN);
        kept
    }

    fn node(&self) -> &Node {
        self.stage.node()
    }

    fn run(&self, script: &str) -> String {
        self.node().must_run(&["sh", "-c", script])
    }

    /// Starts an agent in a new container, which has to take over what the one before left.
    #[track_caller]
    fn start_agent(&self) {
        self.node().launch_contained_agent().wait_ready();
        assert_eq!(status(self.node())["adopted"], true);
    }

    #[track_caller]
    fn wait_for_log(&self, words: &str) {
        self.stage.lab.wait_until(&format!("the keeper says {words:?}"), || match self.keeper.log() {
            log if log.contains(words) => Ok(()),
            log => Err(log),
        });
    }

    /// Which file system is at `/sys/fs/bpf`, and which tables are pinned there.
    fn pins(&self) -> (String, String) {
        let pins = "stat -c %d /sys/fs/bpf; ls -i /sys/fs/bpf/fairlead/maps 2>&1 || true";
        let pins = self.run(pins);
        let (device, tables) = pins.split_once('\n').unwrap();
        (device.to_owned(), tables.to_owned())
    }

    #[track_caller]
    fn wait_for_pins(&self, wanted: &(String, String), what: &str) {
        self.stage.lab.wait_within(TOLD, &format!("{what}: the file system is back"), || match self.pins() {
            pins if pins == *wanted => Ok(()),
            pins => Err(pins),
        });
    }

    fn connections(&self) -> Vec<Connection> {
        self.stage.open.ips().map(|ip| self.stage.closed.connect(&Probe::tcp(ip, PORT)).unwrap()).into()
    }

    #[track_caller]
    fn assert_goes_on(&self, connections: &mut [Connection], what: &str) {
        for connection in connections {
            connection.exchange(10, 10).unwrap_or_else(|error| panic!("{what}: {error}"));
        }
        self.stage.assert_policy_holds(what);
    }
}

fn write_kubeconfig(node: &Node, server: &str) {
    let config = format!(
        "{{clusters: [{{name: c, cluster: {{server: '{server}'}}}}], contexts: [{{name: x, context: {{cluster: c}}}}], \
         current-context: x}}"
    );
    let written = node.run_with(&["sh", "-c", &format!("mkdir -p /etc/kubernetes && cat >{KUBELET}")], &[], &config);
    assert!(written.ok(), "{written:?}");
}

#[test]
fn c58_an_unmounted_bpf_file_system_comes_back_with_its_pins_and_connections_live() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    assert!(pins.1.contains("ct_est") || pins.1.lines().count() > 10, "{pins:?}");
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "while the agent runs");
    kept.wait_for_log("/sys-fs/bpf is mounted again: the same file system with the same pins");
    kept.assert_goes_on(&mut open, "while the agent runs");
    assert_eq!(status(kept.node())["health"], "ready", "the agent has a mount of its own");

    // The container is made anew before anybody has put it back, and finds nothing there.
    kept.run("umount /sys/fs/bpf");
    kept.node().agent().kill9();
    kept.start_agent();
    kept.wait_for_pins(&pins, "with the next agent");
    kept.assert_goes_on(&mut open, "with the next agent");

    // This one sees what is unmounted, and what is mounted.
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "with an agent that sees it");
    kept.stage.lab.wait_within(FOUND, "the agent is ready", || match status(kept.node()) {
        status if status["health"] == "ready" => Ok(()),
        status => Err(status),
    });
    kept.assert_goes_on(&mut open, "with an agent that sees it");

    // Whoever unmounts until there is nothing left to unmount.
    kept.run("while umount /sys/fs/bpf; do sleep 0.01; done");
    kept.wait_for_pins(&pins, "unmounted in a loop");
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "unmounted in a loop");
}

#[test]
fn c58_a_keeper_that_is_killed_takes_nothing_along() {
    let mut kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    kept.keeper.kill(9);
    assert!(kept.keeper.wait(TOLD).is_some());
    kept.assert_goes_on(&mut open, "without a keeper");
    kept.keeper = kept.node().spawn_keeper("next");
    kept.wait_for_log(BEGUN);
    // A second one leaves all of it to the first.
    let second = kept.node().spawn_keeper("second");
    kept.stage.lab.wait_until("the second one waits", || match second.log() {
        log if log.contains("another `fairlead install --keep` runs on this node") => Ok(()),
        log => Err(log),
    });
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "with the next keeper");
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "with the next keeper");
    // It ends when it is told to, and the second takes over.
    kept.keeper.kill(15);
    assert!(kept.keeper.wait(Duration::from_secs(2)).is_some(), "{}", kept.keeper.log());
    assert!(second.wait(Duration::from_secs(2)).is_none());
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "with the second keeper");
    kept.assert_goes_on(&mut open, "with the second keeper");
}

#[test]
fn c58_an_agent_that_may_mount_leaves_it_to_a_keeper() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    kept.keeper.kill(19);
    kept.run("umount /sys/fs/bpf");
    kept.node().agent().kill9();
    let agent = kept.node().launch_agent();
    kept.stage.lab.wait_until("the agent leaves it", || match agent.log() {
        log if log.contains("it is left to `fairlead install --keep`") => Ok(()),
        log => Err(log),
    });
    kept.keeper.kill(18);
    agent.wait_ready();
    assert_eq!(status(kept.node())["adopted"], true);
    kept.wait_for_pins(&pins, "with an agent that may mount");
    kept.assert_goes_on(&mut open, "with an agent that may mount");
}

#[test]
fn c58_a_bpf_file_system_that_others_mount_hides_nobodys_pins() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    // As systemd does it.
    kept.run("umount /sys/fs/bpf && mount -t bpf -o mode=0700 bpf /sys/fs/bpf");
    kept.wait_for_pins(&pins, "an empty one is covered");
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "an empty one is covered");

    kept.run("umount /sys/fs/bpf && umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf && mkdir /sys/fs/bpf/others");
    kept.wait_for_log("in which others have pins and Fairlead has none");
    let names = kept.run("ls /sys/fs/bpf");
    assert!(names.contains("others") && !names.contains("fairlead"), "they are not hidden: {names}");
    let doctor = kept.node().fairlead(&["doctor"]);
    assert!(doctor.stdout.contains("in which others have pins"), "{doctor:?}");
    kept.assert_goes_on(&mut open, "others have pins");
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "others have gone");

    kept.run("mount -t tmpfs none /sys/fs/bpf");
    kept.wait_for_log("a file system of another kind is mounted at");
    kept.assert_goes_on(&mut open, "a file system of another kind");
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "that has gone");
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "that has gone");
}

#[test]
fn c58_what_any_user_may_make_neither_passes_for_pins_nor_for_content() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    // Whoever mounts one without a mode lets everybody write there.
    for harm in ["mkdir -p", "ln -s /tmp"] {
        kept.keeper.kill(19);
        kept.run("umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf");
        kept.run(&format!("{user} {harm} /sys/fs/bpf/fairlead && {user} mkdir /sys/fs/bpf/x"));
        kept.keeper.kill(18);
        kept.wait_for_pins(&pins, harm);
        kept.assert_goes_on(&mut open, harm);
        kept.run("umount /sys/fs/bpf && umount /sys/fs/bpf");
        kept.wait_for_pins(&pins, harm);
    }
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "with the next agent");
}

#[test]
fn c58_an_agent_that_starts_on_another_file_system_waits_for_the_one_that_is_held() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    // The log is that of all agents of the node.
    let waits = |agent: &Agent<'_>, times: usize| {
        kept.stage.lab.wait_until("the agent waits", || match agent.log() {
            log if log.matches("waiting until somebody mounts it").count() == times => Ok(()),
            log => Err(log),
        });
        let log = agent.log();
        assert!(log.contains("holds another one: an agent that began here would begin with empty tables"), "{log}");
    };
    // Before the keeper has looked.
    kept.keeper.kill(19);
    kept.run("umount /sys/fs/bpf && mount -t bpf -o mode=0700 bpf /sys/fs/bpf");
    kept.node().agent().kill9();
    let agent = kept.node().launch_contained_agent();
    waits(&agent, 1);
    kept.keeper.kill(18);
    agent.wait_ready();
    assert_eq!(status(kept.node())["adopted"], true);
    kept.wait_for_pins(&pins, "one that was mounted before the keeper looked");
    kept.assert_goes_on(&mut open, "one that was mounted before the keeper looked");

    // Others have pins in it, so that it is left alone.
    kept.run("while umount /sys/fs/bpf; do :; done; mount -t bpf bpf /sys/fs/bpf && mkdir /sys/fs/bpf/others");
    kept.wait_for_log("in which others have pins and Fairlead has none");
    kept.node().agent().kill9();
    let agent = kept.node().launch_contained_agent();
    waits(&agent, 2);
    let names = kept.run("ls /sys/fs/bpf");
    assert!(names.contains("others") && !names.contains("fairlead"), "{names}");
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "others have gone");
    // Its container still has that one, which no unmounting on the node takes away: it ends, and kubelet makes another container.
    agent.wait_ended();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "others have gone");

    // One that an agent uses, which has heard of no keeper, is kept from then on; nothing of the one before runs beside it.
    kept.keeper.kill(19);
    kept.node().agent().kill9();
    kept.run("rm /run/fairlead/keeper; umount /sys/fs/bpf && mount -t bpf bpf /sys/fs/bpf");
    kept.node().launch_contained_agent().wait_ready();
    assert_eq!(status(kept.node())["adopted"], false);
    let new = kept.pins();
    kept.keeper.kill(18);
    kept.wait_for_log("what was pinned in the one before is given up");
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&new, "the new one");
}

#[test]
fn c58_what_is_mounted_over_the_file_system_is_covered_or_said() {
    let kept = Kept::new();
    let (pins, mut open) = (kept.pins(), kept.connections());
    kept.run("mount -t bpf -o mode=0700 bpf /sys/fs/bpf");
    kept.wait_for_pins(&pins, "an empty one over it");
    kept.assert_goes_on(&mut open, "an empty one over it");
    kept.stage.lab.wait_within(FOUND, "the agent is ready", || match status(kept.node()) {
        status if status["health"] == "ready" => Ok(()),
        status => Err(status),
    });
    kept.run("umount /sys/fs/bpf && umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "that has gone");

    // Others' at once, and another kind. Pins are reached elsewhere then.
    kept.run("mkdir -p /run/pins /run/over && mount --bind /sys/fs/bpf /run/pins && mount --make-private /run/pins");
    let lab = binary("fairlead-lab").unwrap();
    let detach = format!("{} detach /run/pins/fairlead/links/*", lab.display());
    for over in ["mount -t bpf bpf /run/over && mkdir /run/over/others", "mount -t tmpfs none /run/over"] {
        kept.run(&format!("{over} && mount --move /run/over /sys/fs/bpf"));
        kept.stage.lab.wait_within(FOUND, "the agent is impaired, as is said", || match status(kept.node()) {
            status if status["health"] == "impaired" => Ok(()),
            status => Err(status),
        });
        kept.wait_for_log("container too is impaired, so new pods wait");
        let names = kept.run("ls /sys/fs/bpf");
        assert!(!names.contains("fairlead"), "{over}: the agent begins there: {names}");
        kept.assert_goes_on(&mut open, over);
        // Programs come back all the same.
        repaired_after(kept.node(), FOUND, &["program"], || drop(kept.run(&detach)));
        kept.assert_goes_on(&mut open, over);
        kept.run("umount /sys/fs/bpf");
        kept.wait_for_pins(&pins, over);
        kept.stage.lab.wait_within(FOUND, "the agent is ready", || match status(kept.node()) {
            status if status["health"] == "ready" => Ok(()),
            status => Err(status),
        });
    }
    kept.node().agent().kill9();
    kept.start_agent();
    kept.assert_goes_on(&mut open, "with the next agent");
}

#[test]
fn c58_a_node_with_another_file_system_than_its_agent_is_named() {
    let mut kept = Kept::new();
    kept.keeper.kill(9);
    assert!(kept.keeper.wait(TOLD).is_some());
    kept.run("umount /sys/fs/bpf");
    kept.keeper = kept.node().spawn_keeper("next");
    kept.wait_for_log(BEGUN);
    let named = "pinned on another bpf file system than the node has";
    kept.stage.lab.wait_within(Duration::from_secs(60), "status names it", || match status(kept.node()) {
        status if status["warnings"].to_string().contains(named) => Ok(()),
        status => Err(status),
    });
    let doctor = kept.node().fairlead(&["doctor"]);
    assert!(doctor.stdout.contains(named), "{doctor:?}");
    kept.node().agent().kill9();
    kept.node().launch_contained_agent().wait_ready();
    let doctor = kept.node().fairlead(&["doctor"]);
    assert!(!doctor.stdout.contains(named), "{doctor:?}");
}

#[test]
fn c58_an_agent_that_may_not_mount_waits_and_then_says_what_to_do() {
    let stage = Stage::new();
    let node = stage.node();
    node.share_mounts();
    node.agent().kill9();
    node.must_run(&["umount", "/sys/fs/bpf"]);
    let agent = node.launch_contained_agent();
    stage.lab.wait_until("the agent says that it waits", || match agent.log() {
        log if log.contains("waiting until somebody mounts it") => Ok(()),
        log => Err(log),
    });
    // Who mounts it in time is in time.
    node.must_run(&["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"]);
    agent.wait_ready();
    agent.kill9();
    node.must_run(&["umount", "/sys/fs/bpf"]);
    let agent = node.launch_contained_agent();
    stage.lab.wait_until("the agent says what to do", || match agent.log() {
        log if log.contains("or have `fairlead install --keep` run there") && log.contains("fairlead: no bpf file") => {
            Ok(())
        }
        log => Err(log),
    });
    let answer = node.fairlead(&["status"]);
    assert!(!answer.ok() && answer.stderr.contains("mount -t bpf -o mode=0700 bpf /sys/fs/bpf"), "{answer:?}");
}

#[test]
fn c59_what_is_installed_and_removed_comes_back() {
    let kept = Kept::new();
    let (lab, node) = (&kept.stage.lab, kept.node());
    let plugin = kept.run("sha256sum /opt/cni/bin/fairlead-cni");
    let names = kept.run("stat -c '%a %g' /run/fairlead/names");
    assert_eq!(names.trim(), "750 65532");
    kept.run("rm /opt/cni/bin/fairlead-cni; rm -r /run/fairlead/names");
    lab.wait_within(FOUND, "the plugin is back", || {
        let now = node.run(&["sha256sum", "/opt/cni/bin/fairlead-cni"]);
        if now.stdout == plugin { Ok(()) } else { Err(now) }
    });
    lab.wait_within(FOUND, "the directory of names is back", || {
        let now = node.run(&["stat", "-c", "%a %g", "/run/fairlead/names"]);
        if now.stdout == names { Ok(()) } else { Err(now) }
    });
    lab.wait_within(FOUND, "the agent listens there again", || {
        let socket = node.run(&["test", "-S", "/run/fairlead/names/agent.sock"]);
        if socket.ok() { Ok(()) } else { Err(socket) }
    });
    kept.wait_for_log("CNI plugin, put right");
    kept.wait_for_log("run directory, put right");

    // Somebody else's plugin under that name, and one that nobody may execute.
    for harm in ["echo other >/opt/cni/bin/fairlead-cni", "chmod 0600 /opt/cni/bin/fairlead-cni"] {
        kept.run(harm);
        lab.wait_within(FOUND, &format!("{harm}: the plugin is right again"), || {
            let now =
                node.run(&["sh", "-c", "test -x /opt/cni/bin/fairlead-cni && sha256sum /opt/cni/bin/fairlead-cni"]);
            if now.stdout == plugin { Ok(()) } else { Err(now) }
        });
    }

    // The API server moves.
    write_kubeconfig(node, "https://172.18.0.12:6443");
    lab.wait_within(FOUND, "the agent is told", || match kept.run("cat /run/fairlead/apiserver") {
        url if url.contains("172.18.0.12") => Ok(()),
        url => Err(url),
    });
    kept.run(&format!("echo '{{' >{KUBELET}"));
    kept.wait_for_log("set `apiServer`");
    let doctor = node.fairlead(&["doctor"]);
    assert!(doctor.stdout.contains("set `apiServer`"), "{doctor:?}");
    assert!(!doctor.stdout.contains("a keeper"), "{doctor:?}");

    // Nobody but the keeper is left to see to it.
    node.agent().kill9();
    kept.run("sysctl -qw net.ipv4.ip_forward=0");
    lab.wait_within(FOUND, "the node forwards", || match kept.run("sysctl -n net.ipv4.ip_forward") {
        value if value.trim() == "1" => Ok(()),
        value => Err(value),
    });
    let refused = node.fairlead(&["uninstall"]);
    assert!(!refused.ok() && refused.stderr.contains("`fairlead install --keep` is running"), "{refused:?}");
    kept.keeper.kill(15);
    assert!(kept.keeper.wait(Duration::from_secs(2)).is_some(), "{}", kept.keeper.log());
    let done = node.fairlead(&["uninstall"]);
    assert!(done.ok(), "{done:?}");
    assert!(!node.run(&["test", "-e", "/run/fairlead"]).ok());
}

#[test]
fn c59_a_keeper_whose_run_directory_was_removed_ends_and_its_successor_is_seen() {
    let mut kept = Kept::new();
    let pins = kept.pins();
    kept.run("rm -rf /run/fairlead");
    assert!(kept.keeper.wait(FOUND).is_some(), "{}", kept.keeper.log());
    kept.wait_for_log("was removed or moved on the node");
    kept.keeper = kept.node().spawn_keeper("next");
    kept.wait_for_log(BEGUN);
    kept.run("umount /sys/fs/bpf");
    kept.wait_for_pins(&pins, "with the next keeper");
    kept.node().agent().kill9();
    let refused = kept.node().fairlead(&["uninstall"]);
    assert!(!refused.ok() && refused.stderr.contains("`fairlead install --keep` is running"), "{refused:?}");
}

#[test]
fn c59_a_keeper_waits_while_somebody_else_holds_its_lock_and_holds_nothing() {
    let kept = Kept::new();
    // As `fairlead uninstall` does while it works.
    let held = kept.node().spawn("holder", &["flock", "--no-fork", "/run/fairlead/other", "sleep", "1000"], &[]);
    kept.stage.lab.wait_until("it is held", || match kept.node().run(&["test", "-e", "/run/fairlead/other"]) {
        made if made.ok() => Ok(()),
        made => Err(made),
    });
    kept.run("mv /run/fairlead/other /run/fairlead/keeper; rm /opt/cni/bin/fairlead-cni");
    kept.wait_for_log("another `fairlead install --keep` runs on this node");
    std::thread::sleep(FOUND);
    assert!(!kept.node().run(&["test", "-e", "/opt/cni/bin/fairlead-cni"]).ok(), "it leaves things alone");
    kept.run("umount /sys/fs/bpf");
    held.kill(9);
    kept.stage.lab.wait_within(FOUND, "it keeps again", || {
        match kept.node().run(&["test", "-e", "/opt/cni/bin/fairlead-cni"]) {
            there if there.ok() => Ok(()),
            there => Err(there),
        }
    });
}
