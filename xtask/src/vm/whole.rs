//! A guest that has the files of this machine: what is built here runs on another kernel there. What it writes stays in its
//! memory, except in one folder.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{build_verifier, initramfs, modules, qemu};
use crate::{
    arch::Arch,
    paths, pins, run,
    setup::{Part, machine},
};

/// What every such guest does first.
const MOUNTS: &str = include_str!("whole.sh");
/// For a cluster of two nodes: what nodes keep on their disks is in memory.
const MEMORY: &str = "7G";
/// Memory that those see who share files.
const SHARED_MEMORY: &str = "memory-backend-memfd,id=memory,share=on,size=7G";
/// Emulation takes hours where this machine is busy.
const PATIENCE: Duration = Duration::from_secs(6 * 3600);
/// What the verifier prints last, as the guest's first process, when the command has succeeded.
const DONE: &str = "fairlead-verifier\tdone\t";

/// What a guest does.
pub(crate) struct Whole<'a> {
    /// What a shell runs, in the work tree.
    pub(crate) command: &'a str,
    /// A folder that is empty there, and in the guest's memory.
    pub(crate) scratch: &'a Path,
    /// A folder of this machine that the guest writes to.
    pub(crate) results: &'a Path,
}

impl Whole<'_> {
    /// Runs it on the newest kernel, and says whether the command succeeded. What the guest prints is shown.
    pub(crate) fn run(&self, accel: &str) -> Result<bool> {
        for part in [Part::Emulator, Part::Kernels, Part::Modules] {
            part.require()?;
        }
        let [.., series] = pins::KERNELS;
        let arch = Arch::Amd64;
        let program = fs::read(build_verifier(arch)?)?;
        let modules = modules(arch, series)?;
        let script = self.script();
        let mut files: Vec<(&str, &[u8])> = modules.iter().map(|(name, module)| (*name, module.as_slice())).collect();
        files.push(("script", script.as_bytes()));
        let initrd = paths::target().join("initramfs-whole.cpio");
        fs::write(&initrd, initramfs::archive(&program, &files, &BTreeMap::new()))?;

        let shares = [Share::of_machine()?, Share::of_results(self.results)?];
        let [cpu, ..] = qemu::cpus(arch) else { return Ok(false) };
        // Its time is that of the instructions that it runs, on one thread: no timeout depends on how busy this machine is.
        let (accel, clock): (_, &[&str]) = match accel {
            "tcg" => ("tcg,thread=single", &["-icount", "shift=0,sleep=on"]),
            other => (other, &[]),
        };
        // Nobody attacks the guest, and emulated processors are slow with what is done against attacks.
        let mut command = qemu::command(&qemu::Machine { arch, cpu, accel }, series, &initrd, "mitigations=off")?;
        command.args(["-m", MEMORY, "-object", SHARED_MEMORY, "-numa", "node,memdev=memory"]).args(clock);
        for share in &shares {
            let (tag, socket) = (share.tag, share.socket.display());
            command.args(["-chardev", &format!("socket,id={tag},path={socket}")]);
            command.args(["-device", &format!("vhost-user-fs-pci,chardev={tag},tag={tag}")]);
        }
        run::say(format!("starting a guest with the files of this machine on {series} under QEMU ({accel})"));
        let console = qemu::console(&mut command, PATIENCE, |line| eprintln!("guest: {line}"))?;
        Ok(console.contains(DONE))
    }

    /// What the guest's first process has a shell do.
    fn script(&self) -> String {
        let variables = ["HOME", "PATH", "XDG_CACHE_HOME", "CARGO_TARGET_DIR"];
        let own = variables.into_iter().filter_map(|name| Some((name, std::env::var(name).ok()?)));
        let paths = [("SCRATCH", self.scratch), ("RESULTS", self.results)]
            .map(|(name, path)| (name, path.display().to_string()));
        let exports = own.chain(paths).map(|(name, value)| format!("export {name}={}\n", quoted(&value)));
        let workspace = quoted(&paths::workspace().display().to_string());
        format!("{}{MOUNTS}cd {workspace}\n{}\n", exports.collect::<String>(), self.command)
    }
}

/// A word for a shell.
pub(crate) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A folder that virtiofsd shares with the guest, until this is dropped.
struct Share {
    tag: &'static str,
    socket: PathBuf,
    server: Child,
}

impl Share {
    /// All files, in a namespace where they can only be read.
    fn of_machine() -> Result<Self> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount -o remount,bind,ro / && exec \"$@\"", "sh"]);
        command.arg(machine::virtiofsd()?);
        Self::start("machine", command, Path::new("/"))
    }

    fn of_results(folder: &Path) -> Result<Self> {
        Self::start("results", Command::new(machine::virtiofsd()?), folder)
    }

    fn start(tag: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        let socket = paths::target().join(format!("{tag}.sock"));
        if socket.exists() {
            fs::remove_file(&socket)?;
        }
        let listener = UnixListener::bind(&socket).with_context(|| format!("can't bind {}", socket.display()))?;
        let log = fs::File::create(socket.with_extension("log"))?;
        // It is root here, and without CAP_SYS_RESOURCE in a container.
        let server = command
            .args(["--fd=0", "--rlimit-nofile=0", "-f", "-o", "cache=always", "-o", "sandbox=chroot", "-o"])
            .arg(format!("source={}", folder.display()))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("can't start virtiofsd, which shares files with guests")?;
        Ok(Self { tag, socket, server })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        // It ends with the guest, unless that did not begin.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_file(&self.socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_has_the_folders_before_the_mounts_and_the_command_last() {
        let script = Whole { command: "true it\'s", scratch: Path::new("/a b"), results: Path::new("/r") }.script();
        let at = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text:?} in {script}"));
        assert!(at("export SCRATCH='/a b'\n") < at("mount -t proc"), "{script}");
        assert!(at("export RESULTS='/r'\n") < at("mount -t proc"), "{script}");
        assert!(script.ends_with("\ntrue it\'s\n"), "{script}");
    }

    #[test]
    fn a_quoted_word_is_one() {
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
