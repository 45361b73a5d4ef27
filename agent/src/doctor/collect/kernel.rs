//! What the kernel can do.

use std::fs;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::{ProgramError, ProgramType};
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported, is_program_supported};
use nix::sys::utsname::uname;

use super::super::facts::Kernel;
use crate::sockets::Diag;

const MAPS: [(MapType, &str); 7] = [
    (MapType::Hash, "hash maps"),
    (MapType::LruHash, "LRU maps"),
    (MapType::LpmTrie, "maps of prefixes"),
    (MapType::RingBuf, "ring buffers"),
    (MapType::SkStorage, "socket storage"),
    (MapType::ArrayOfMaps, "maps of maps"),
    (MapType::PerCpuArray, "per-CPU arrays"),
];

/// The helpers that came last, of what the programs call.
const HELPERS: [(ProgramType, BpfHelper, &str); 4] = [
    (ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_peer, "bpf_redirect_peer"),
    (ProgramType::SchedClassifier, BpfHelper::BPF_FUNC_redirect_neigh, "bpf_redirect_neigh"),
    (ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_sk_storage_get, "bpf_sk_storage_get for sockets of cgroups"),
    (ProgramType::CgroupSockAddr, BpfHelper::BPF_FUNC_get_netns_cookie, "bpf_get_netns_cookie for sockets of cgroups"),
];

/// What the kernel can do, as far as this process may ask.
#[must_use]
pub fn kernel(proc_sys: &Path) -> Kernel {
    let release = uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
    let jit = fs::read_to_string(proc_sys.join("net/core/bpf_jit_enable")).ok();
    let (lacks, refuses) = probe();
    Kernel {
        version: version(&release),
        release,
        btf: Some(Path::new("/sys/kernel/btf/vmlinux").exists()),
        jit: jit.map(|text| text.trim() != "0"),
        ends_sockets: Diag::open().and_then(|mut diag| diag.can_end()).ok(),
        lacks,
        refuses,
    }
}

/// Major and minor version: of `6.1.0-50-cloud-amd64`, 6 and 1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn probe() -> (Vec<String>, Option<String>) {
    let text = |error: ProgramError| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    let mut lacks = Vec::new();
    let programs =
        [(ProgramType::SchedClassifier, "programs for packets"), (ProgramType::CgroupSockAddr, "programs for sockets")];
    for (kind, name) in programs {
        match is_program_supported(kind) {
            Ok(true) => {}
            Ok(false) => lacks.push(name.to_owned()),
            Err(error) => return (lacks, Some(text(error))),
        }
    }
    for (kind, name) in MAPS {
        match is_map_supported(kind) {
            Ok(true) => {}
            Ok(false) => lacks.push(name.to_owned()),
            Err(error) => return (lacks, Some(format!("{}: {}", error.call, error.io_error))),
        }
    }
    for (program, helper, name) in HELPERS {
        match is_helper_supported(program, helper) {
            Ok(true) => {}
            Ok(false) => lacks.push(name.to_owned()),
            Err(error) => return (lacks, Some(text(error))),
        }
    }
    (lacks, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(version("6.1.0-50-cloud-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("6.18.44-fc-v782"), Some((6, 18)));
        assert_eq!(version(""), None);
    }

    #[test]
    fn this_kernel_has_everything() {
        assert_eq!(probe(), (vec![], None), "this test needs root");
        assert!(Diag::open().unwrap().can_end().unwrap());
    }
}
