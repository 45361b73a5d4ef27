//! What runs as processes of their own: this program calls itself to make namespaces, since a process that has threads can't.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::setsid;

use crate::addresses::node;
use crate::cluster::Cluster;
use crate::place::{FABRIC, Home, Place, Record};
use crate::process::Process;
use crate::service::Service;
use crate::system::private_mounts;
use crate::{balancer, cgroups, fabric, supervisor, teardown};

/// How this library calls the program that it is part of: that one hands what comes after these words to [`inner`].
#[derive(Debug, Clone)]
pub struct Helper(pub Vec<OsString>);

impl Helper {
    pub(crate) fn command(&self, verb: &str, home: &Path) -> Result<Command> {
        let (program, arguments) = self.0.split_first().context("a helper is a program")?;
        let mut command = Command::new(program);
        command.args(arguments).arg(verb).arg(home);
        Ok(command)
    }

    /// The same as a program that a place keeps running.
    pub(crate) fn service(&self, name: &str, verb: &str, home: &Path) -> Service {
        let words = self.0.iter().map(OsString::as_os_str).chain([verb.as_ref(), home.as_os_str()]);
        Service::new(name, words.map(OsStr::to_string_lossy))
    }
}

/// The helper's work: `words` are a verb, a cluster's directory, and what the verb needs.
pub fn inner(helper: &Helper, words: &[OsString]) -> Result<()> {
    let [verb, home, rest @ ..] = words else { bail!("this is for the cluster to call, not for people") };
    let home = Home::new(Path::new(home));
    match (verb.to_str().unwrap_or_default(), rest) {
        ("launch", [place]) => launch(helper, &home, &place.to_string_lossy()),
        ("init", [place]) => init(&home, &place.to_string_lossy()),
        ("enter", [node, command @ ..]) => enter(&home, &node.to_string_lossy(), command),
        ("guard", []) => guard(&home),
        ("balance", []) => balancer::balance(&Cluster::open(&home.path, helper.clone())?),
        _ => bail!("the cluster called {words:?}, which is unknown: are these two versions?"),
    }
}

/// Makes the namespaces of a place, starts its first process and ends.
fn launch(helper: &Helper, home: &Home, name: &str) -> Result<()> {
    let record = home.record()?;
    let place = home.place(name);
    fs::create_dir_all(place.logs())?;
    // Not in the terminal's process group: Ctrl-C there ends what waits for the cluster, not the cluster.
    setsid().context("can't leave the terminal")?;
    let mut flags =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
    if name == FABRIC {
        unshare(flags).context("can't make namespaces")?;
    } else {
        let router = home.place(FABRIC).alive()?;
        let cgroup = Home::cgroup(&record, name);
        cgroups::make(&record.hierarchies, &cgroup)?;
        cgroups::enter(&record.hierarchies, &cgroup)?;
        flags |= CloneFlags::CLONE_NEWCGROUP;
        unshare(flags).context("can't make namespaces")?;
        private_mounts()?;
        fabric::connect(&record.spec, number(&record, name)?, name, router.pid)?;
    }
    unshare(CloneFlags::CLONE_NEWPID).context("can't make a namespace for processes")?;
    let log = OpenOptions::new().create(true).append(true).open(place.logs().join("init.log"))?;
    let mut child = helper
        .command("init", &home.path)?
        .arg(name)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir("/")
        .spawn()
        .context("can't start a place's first process")?;
    place.set_init(Process::of(child.id())?)?;
    // It has this process's mounts, and hides /proc and the place's directory below its own: not before both were used.
    child.stdin.take().context("it is piped")?.write_all(GO).context("a place's first process has ended")
}

fn number(record: &Record, name: &str) -> Result<u8> {
    let found = record.spec.node_names().find(|(_, node)| node == name);
    found.map(|(number, _)| number).with_context(|| format!("this cluster has no {name}"))
}

/// What [`launch`] tells [`init`] when it has written it down.
const GO: &[u8] = b"go";

/// The first process of a place.
fn init(home: &Home, name: &str) -> Result<()> {
    io::stdin().read_exact(&mut [0; GO.len()]).context("whoever started this place has ended")?;
    let record = home.record()?;
    let place = home.place(name);
    if name == FABRIC {
        fabric::make(&record.spec)?;
        fs::write(place.ready(), "")?;
        return supervisor::supervise(&place.path);
    }
    crate::node::make(&record, &place, number(&record, name)?).with_context(|| format!("can't make {name}"))?;
    // The directory as the node sees it: where it was may be hidden now.
    let place = Place { path: PathBuf::from(crate::node_config::OWN) };
    fs::write(place.ready(), "")?;
    supervisor::supervise(&place.path)
}

/// Runs a command in a node, as a process of the node: below its cgroups too, where hooks at sockets see it.
fn enter(home: &Home, node: &str, command: &[OsString]) -> Result<()> {
    let record = home.record()?;
    let init = home.place(node).alive()?;
    cgroups::enter(&record.hierarchies, &Home::cgroup(&record, node))?;
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--target={}", init.pid)).arg("--all").arg("--");
    if command.is_empty() {
        nsenter.args(["/bin/sh", "-l"])
    } else {
        nsenter.args(command)
    };
    Err(nsenter.exec()).context("can't start nsenter of util-linux")
}

/// Takes the cluster down when whoever holds the other end of standard input is gone, for whatever reason.
fn guard(home: &Home) -> Result<()> {
    setsid().context("can't leave the terminal")?;
    io::stdin().read_to_end(&mut Vec::new())?;
    // It may have been taken down by now.
    if home.path.exists() { teardown::down(home) } else { Ok(()) }
}

/// The addresses of a node, by its name.
pub(crate) fn addresses(record: &Record, name: &str) -> Result<(std::net::Ipv4Addr, std::net::Ipv6Addr)> {
    Ok(node(number(record, name)?, record.spec.subnets))
}
