//! What resolvers that pods have get from fairlead-dns, for names of all kinds: glibc, musl, Go, c-ares (by Node), Java, and
//! systemd-resolved in front of glibc. One that is not installed is left out, and said so.

mod cases;
#[path = "../apiserver/beside/upstream.rs"]
mod upstream;

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cases::Case;
use nix::sched::{CloneFlags, unshare};

/// What every pod has.
const RESOLV_CONF: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\nnameserver ";

/// A way to ask.
struct Resolver {
    name: &'static str,
    /// Builds the program, if there is anything to build it with.
    build: fn(&Path) -> Option<Command>,
    /// How to get it.
    hint: &'static str,
    /// It looks short names up in the search list.
    searches: bool,
    /// The most addresses that it gives.
    most: usize,
}

const RESOLVERS: [Resolver; 5] = [
    Resolver {
        name: "glibc",
        build: |dir| c(dir, "cc", "glibc"),
        hint: "apt-get install gcc libc6-dev",
        searches: true,
        most: usize::MAX,
    },
    // It has room for so many; before 1.2.4 it asks nothing over TCP, and takes what fits into 512 bytes.
    Resolver {
        name: "musl",
        build: |dir| c(dir, "musl-gcc", "musl"),
        hint: "apt-get install musl-tools",
        searches: true,
        most: 48,
    },
    Resolver {
        name: "Go",
        build: |dir| {
            let out = dir.join("resolve-go");
            let mut go = Command::new("go");
            go.args(["build", "-o"]).arg(&out).arg(program("resolve.go"));
            go.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off")]).env("GOCACHE", dir.join("go"));
            built(&mut go)?;
            Some(Command::new(out))
        },
        hint: "https://go.dev/doc/install, or a cluster's parts: cargo xtask cluster up",
        searches: true,
        most: usize::MAX,
    },
    Resolver {
        name: "c-ares",
        build: |_| {
            built(Command::new("node").arg("--version"))?;
            let mut node = Command::new("node");
            node.arg(program("resolve.js"));
            Some(node)
        },
        hint: "apt-get install nodejs",
        searches: false,
        most: usize::MAX,
    },
    Resolver {
        name: "Java",
        build: |dir| {
            built(Command::new("javac").arg("-d").arg(dir).arg(program("Resolve.java")))?;
            let mut java = Command::new("java");
            java.arg("-cp").arg(dir).arg("Resolve");
            Some(java)
        },
        hint: "apt-get install default-jdk-headless",
        searches: true,
        most: usize::MAX,
    },
];

fn program(name: &str) -> PathBuf {
    fairlead_tree::path("tests/tests/resolvers/programs").expect("tests run in a work tree").join(name)
}

fn c(dir: &Path, compiler: &str, name: &str) -> Option<Command> {
    let out = dir.join(format!("resolve-{name}"));
    built(Command::new(compiler).args(["-O1", "-o"]).arg(&out).arg(program("resolve.c")))?;
    Some(Command::new(out))
}

/// `None`: the compiler is not there. One that is there has to work.
fn built(command: &mut Command) -> Option<()> {
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{command:?}: {error}"),
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// A process that ends with this.
struct Running(Child);

impl Running {
    fn start(dir: &Path, name: &str, command: &mut Command) -> Self {
        let log = File::create(dir.join(format!("{name}.log"))).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn done(command: &str) {
    let status = Command::new("sh").args(["-ec", command]).status().unwrap();
    assert!(status.success(), "{command}: {status}");
}

/// A folder that goes with this.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Waits until somebody answers at an address.
fn wait(server: &str, dir: &Path) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["web", "shop", "svc", "cluster", "local", ""] {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.as_bytes());
    }
    question.extend([0, 1, 0, 1]);
    let begin = Instant::now();
    loop {
        let mut answer = [0; 512];
        drop(socket.send_to(&question, (server, 53)));
        if socket.recv(&mut answer).is_ok() && answer[3] & 15 == 0 && answer[7] == 1 {
            return;
        }
        let logs = || {
            let logs = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
            let logs = logs.filter(|path| path.extension().is_some_and(|ext| ext == "log"));
            logs.map(|path| fs::read_to_string(path).unwrap()).collect::<String>()
        };
        assert!(begin.elapsed() < Duration::from_secs(20), "nobody answers at {server}: {}", logs());
    }
}

/// As everybody writes it.
fn written(text: &str) -> String {
    text.parse::<IpAddr>().map_or_else(|_| text.to_ascii_lowercase(), |address| address.to_string())
}

/// What a resolver says to each case: lines in their order.
fn ask(name: &str, program: &mut Command, cases: &[Case]) -> Vec<Vec<String>> {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let questions: String = cases.iter().map(|case| format!("{} {}\n", case.kind, case.name)).collect();
    child.stdin.take().unwrap().write_all(questions.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Vec<Vec<String>> = text
        .lines()
        .map(|line| {
            let (_, found) = line.split_once(" =").unwrap_or_else(|| panic!("{name}: {line}"));
            let mut found: Vec<String> = found.split_whitespace().map(written).collect();
            found.sort();
            found.dedup();
            found
        })
        .collect();
    assert_eq!(said.len(), cases.len(), "{name}: {text}");
    said
}

/// What a resolver says that it should not.
fn faults(resolver: &Resolver, cases: &[Case], said: &[Vec<String>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (case, said) in cases.iter().zip(said) {
        let is_right = match () {
            () if said[..] == ["!"] => true,
            () if case.is_short && !resolver.searches => said.is_empty(),
            () if case.wanted.len() > resolver.most => {
                !said.is_empty() && said.iter().all(|one| case.wanted.contains(one))
            }
            () => *said == case.wanted,
        };
        if !is_right {
            faults
                .push(format!("{}: {} {}: {said:?} instead of {:?}", resolver.name, case.kind, case.name, case.wanted));
        }
    }
    faults
}

#[test]
#[ignore = "it compiles a program for each resolver that is installed: `cargo xtask test --full`"]
fn d44_resolvers_get_what_there_is_for_names_of_all_kinds() {
    let dir = Folder(std::env::temp_dir().join(format!("fairlead-resolvers-{}", std::process::id())));
    let dir = &dir.0;
    fs::create_dir_all(dir.join("objects")).unwrap();
    fs::write(dir.join("objects/all.yaml"), cases::manifests()).unwrap();
    // What is mounted and listened on here is nobody else's.
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("root can make namespaces");
    done("mount --make-rprivate / && ip link set lo up");
    let resolv_conf = dir.join("resolv.conf");
    fs::write(&resolv_conf, format!("{RESOLV_CONF}127.0.0.1\n")).unwrap();
    done(&format!("mount --bind {} /etc/resolv.conf", resolv_conf.display()));
    let upstream = upstream::serve().to_string();
    let mut server = Command::new(fairlead_tests::binary("fairlead-dns").unwrap());
    server.arg("--objects").arg(dir.join("objects")).args(["--listen", "127.0.0.1:53", "--upstream", &upstream]);
    let _server = Running::start(dir, "fairlead-dns", &mut server);
    wait("127.0.0.1", dir);

    let cases = cases::all();
    let mut wrong = Vec::new();
    let mut asked = 0;
    for resolver in &RESOLVERS {
        let Some(mut program) = (resolver.build)(dir) else {
            println!("LEFT OUT: {} is not installed: {}", resolver.name, resolver.hint);
            continue;
        };
        wrong.extend(faults(resolver, &cases, &ask(resolver.name, &mut program, &cases)));
        asked += 1;
    }
    match behind_systemd(dir, &cases) {
        Some(faults) => wrong.extend(faults),
        None => println!("LEFT OUT: systemd-resolved is not installed: apt-get install systemd-resolved"),
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(asked > 0, "no resolver is installed");
}

/// What glibc gets from systemd-resolved, which asks us. `None`: one of them is not installed.
fn behind_systemd(dir: &Path, cases: &[Case]) -> Option<Vec<String>> {
    const PROGRAM: &str = "/lib/systemd/systemd-resolved";
    let mut program = Path::new(PROGRAM).exists().then(|| c(dir, "cc", "systemd"))??;
    // It gives up its rights for a user of its own, keeps its state below /run, and needs no bus.
    // It asks nobody as long as no link is up but the loopback.
    done("ip link add up0 type veth peer name up1 && ip addr add 198.51.100.1/24 dev up0");
    done("ip link set up0 up && ip link set up1 up");
    done("mount -t tmpfs none /run && mkdir -p /run/systemd/resolved.conf.d");
    let (passwd, conf) = (dir.join("passwd"), "/run/systemd/resolved.conf.d/test.conf");
    let mut users = fs::read_to_string("/etc/passwd").unwrap();
    if !users.contains("systemd-resolve:") {
        users.push_str("systemd-resolve:x:64990:64990::/:/usr/sbin/nologin\n");
    }
    fs::write(&passwd, users).unwrap();
    fs::write(conf, "[Resolve]\nDNS=127.0.0.1\nDNSSEC=no\nLLMNR=no\nMulticastDNS=no\nDomains=cluster.local ~.\n")
        .unwrap();
    done(&format!("mount --bind {} /etc/passwd", passwd.display()));
    let mut resolved = Command::new(PROGRAM);
    resolved.env("SYSTEMD_LOG_TARGET", "console");
    let _resolved = Running::start(dir, "systemd-resolved", &mut resolved);
    wait("127.0.0.53", dir);
    fs::write(dir.join("resolv.conf"), format!("{RESOLV_CONF}127.0.0.53\n")).unwrap();
    let resolver = Resolver { name: "systemd-resolved", ..RESOLVERS[0] };
    Some(faults(&resolver, cases, &ask(resolver.name, &mut program, cases)))
}
