//! Being the first process of a machine that has nothing else.

use std::{ffi::CStr, fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context, Result};
use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
    unistd::{chdir, chroot, sync},
};

/// `MODULE_INIT_COMPRESSED_FILE` (include/uapi/linux/module.h).
const PACKED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Where the initramfs has the object.
pub(crate) const OBJECT: &str = "/object";

/// Where it has the command that runs tests in labs, if it has those, and their programs.
const LABS: &str = "/labs";
const BINARIES: &str = "/fairlead";

/// Where it has what a guest runs whose files are those of the machine around it, if that is what it is for: a script.
const SCRIPT: &str = "/script";

/// What that machine shares its files as.
const SHARED: &str = "machine";

/// Where it has frames, if it has any.
const FRAMES: &str = "/frames";

/// Where it has modules of the kernel, those that are modules, and with which parameters; what one needs comes before it.
const MODULES: [(&str, &CStr); 17] = [
    ("/dummy", c"numdummies=0"),
    ("/veth", c""),
    ("/sch_ingress", c""),
    ("/cls_bpf", c""),
    ("/sch_fq", c""),
    ("/llc", c""),
    ("/stp", c""),
    ("/garp", c""),
    ("/mrp", c""),
    ("/8021q", c""),
    ("/bridge", c""),
    ("/udp_tunnel", c""),
    ("/ip6_udp_tunnel", c""),
    ("/vxlan", c""),
    ("/libcrc32c", c""),
    ("/sctp", c""),
    ("/overlay", c""),
];

/// Mounts what loading a program reads (the kernel's types below /sys, the CPU count below /proc), and loads the modules
/// that interfaces, hooks and queues need.
pub(crate) fn prepare() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("bpf", "/sys/fs/bpf")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("can't mount {kind} on {place}"))?;
    }
    for (path, parameters) in MODULES {
        let Ok(module) = fs::File::open(path) else { continue };
        // Packed as in the kernel's package, or not.
        finit_module(&module, parameters, ModuleInitFlags::empty())
            .or_else(|_| finit_module(&module, parameters, PACKED))
            .with_context(|| format!("can't load the module {path}"))?;
    }
    Ok(())
}

/// Runs the script that the initramfs has, if it has one, on the files of the machine around the guest. Whether it succeeded.
pub(crate) fn script() -> Option<Result<bool>> {
    let script = fs::read_to_string(SCRIPT).ok()?;
    Some(change_root().and_then(|()| run_script(&script)))
}

/// Has the files of the machine around the guest for its own: what is written goes to memory.
fn change_root() -> Result<()> {
    let (shared, layer, root) = ("/shared", "/layer", "/all");
    for place in [shared, layer, root] {
        fs::create_dir_all(place)?;
    }
    mount(Some(SHARED), shared, Some("virtiofs"), MsFlags::MS_RDONLY, None::<&str>)
        .with_context(|| format!("can't mount {SHARED}"))?;
    mount(Some("tmpfs"), layer, Some("tmpfs"), MsFlags::empty(), Some("size=75%,mode=755"))?;
    for place in ["/layer/upper", "/layer/work"] {
        fs::create_dir(place)?;
    }
    let options = format!("lowerdir={shared},upperdir={layer}/upper,workdir={layer}/work");
    mount(Some("overlay"), root, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        .context("can't lay memory over the files of the machine")?;
    // The root of the namespace too, which is what those get who enter it.
    chdir(root)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>).context("can't move the root")?;
    chroot(".")?;
    Ok(chdir("/")?)
}

fn run_script(script: &str) -> Result<bool> {
    let status = Command::new("/bin/sh").arg("-c").arg(script).status().context("can't start a shell")?;
    if status.success() {
        crate::done()?;
    }
    Ok(status.success())
}

/// Runs the tests in labs that the initramfs has, if it has any, with a machine around them as labs want it. Whether they passed.
pub(crate) fn labs() -> Option<Result<bool>> {
    let command = fs::read_to_string(LABS).ok()?;
    Some(run_labs(&command))
}

fn run_labs(command: &str) -> Result<bool> {
    for (kind, place) in [("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")] {
        fs::create_dir_all(place)?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("can't mount {kind} on {place}"))?;
    }
    for place in ["/etc", "/root"] {
        fs::create_dir_all(place)?;
    }
    let mut words = command.split_whitespace();
    let program = words.next().context("no program is named")?;
    let status = Command::new(program)
        .args(words)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("FAIRLEAD_BIN_DIR", BINARIES)
        .status()
        .with_context(|| format!("can't start {program}"))?;
    Ok(status.success())
}

/// The path of the frames, if there are any.
pub(crate) fn frames() -> Option<&'static str> {
    Path::new(FRAMES).exists().then_some(FRAMES)
}

/// Turns the machine off. When even that fails, returning lets the kernel panic, which ends the emulator as well.
pub(crate) fn power_off() {
    std::io::stdout().flush().ok();
    sync();
    reboot(RebootMode::RB_POWER_OFF).ok();
}
