//! Settings of the kernel that a node needs to forward for its pods.
//!
//! What is right already is not written, so that a read-only /proc/sys that somebody prepared will do. What is written
//! is [recorded](record) first, for those who take Fairlead off the node.
//!
//! Why these and no others:
//! - *Forwarding*, of course: of the node, and of each uplink, where systemd-networkd switches it off one by one.
//! - *`accept_ra` of 2*: with forwarding the kernel ignores router advertisements where it is 1, and the node loses its
//!   own default route and addresses (Documentation/networking/ip-sysctl.rst).
//! - *`rp_filter` loose on primary uplinks*: what comes for a process of the node from a pod elsewhere, or for a node port, may
//!   come in by another interface than the answer leaves by (a tunnel one way, the wire the other; two uplinks).
//!   The larger of a device's own value and that of `all` counts, so 2 on the device is enough. The programs check
//!   sources themselves, more strictly. Pods' links need nothing: each has the route to all its addresses.
//! - *Reserved ports*: where the kernel picks ports from the range that translated flows get theirs from, each would find
//!   the other's taken; and to a NodePort that it picked nothing would come, for that goes to the service (S7).

pub(super) mod record;

use std::path::{Path, PathBuf};

use super::{Kept, WiringError};
use record::Record;

/// Where the settings are.
pub const PROC_SYS: &str = "/proc/sys";

const FORWARD: [&str; 2] = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"];
const LOCAL_PORTS: &str = "net/ipv4/ip_local_port_range";
const RESERVED_PORTS: &str = "net/ipv4/ip_local_reserved_ports";

/// The first and last NodePort, by default of the API server's `--service-node-port-range`, which nothing tells.
const NODE_PORTS: (u16, u16) = (30_000, 32_767);

/// The settings below a `/proc/sys`, in the network namespace of the calling thread.
#[derive(Debug, Clone)]
pub struct Sysctls {
    root: PathBuf,
    record: PathBuf,
}

impl Sysctls {
    /// The settings below `root`; what they were is kept in the run directory.
    #[must_use]
    pub fn new(root: &Path, run_dir: &Path) -> Self {
        Self { root: root.to_owned(), record: run_dir.join("sysctls") }
    }

    /// Sets what a forwarding node needs. Each setting is tried, whatever becomes of the others.
    #[must_use]
    pub fn prepare(&self) -> Kept {
        let mut kept = Kept::default();
        // Before forwarding: see above. Devices come and go, so that one needs it is nothing that anybody undid.
        for device in self.devices("ipv6") {
            let key = format!("net/ipv6/conf/{device}/accept_ra");
            if device != "all" && self.read(&key).as_deref() == Some("1") {
                kept.errors.extend(self.set(&key, "2").err());
            }
        }
        for key in FORWARD {
            // A kernel without IPv6 has no such file, and no such pods.
            if self.read(key).is_some_and(|value| value != "1") {
                self.keep(&mut kept, key, "1");
            }
        }
        if let (Some(range), Some(reserved)) = (self.read(LOCAL_PORTS), self.read(RESERVED_PORTS))
            && let Some(wanted) = reserve(&range, &reserved)
        {
            self.keep(&mut kept, RESERVED_PORTS, &wanted);
        }
        kept
    }

    /// Sets what an interface that leads out of the node needs; only one by which other nodes are reached has to take what it would not
    /// answer by.
    #[must_use]
    pub fn prepare_uplink(&self, device: &str, is_primary: bool) -> Kept {
        let mut kept = Kept::default();
        for key in ["ipv4", "ipv6"].map(|family| format!("net/{family}/conf/{device}/forwarding")) {
            if self.read(&key).as_deref() == Some("0") {
                self.keep(&mut kept, &key, "1");
            }
        }
        if is_primary && self.is_strict(device) {
            self.keep(&mut kept, &format!("net/ipv4/conf/{device}/rp_filter"), "2");
        }
        kept
    }

    fn keep(&self, kept: &mut Kept, key: &str, value: &str) {
        kept.note(|| format!("{} = {value}", key.replace('/', ".")), self.set(key, value));
    }

    /// Has the node take packets from a device of ours also where their answers would go another way: nodes may not agree on
    /// the way between them. Of this and the setting for all devices the larger number holds, and 2 is loose. Says whether it
    /// was not so.
    ///
    /// # Errors
    /// The setting can't be written.
    pub fn loosen(&self, device: &str) -> Result<bool, WiringError> {
        let key = format!("net/ipv4/conf/{device}/rp_filter");
        if self.read(&key).as_deref() == Some("2") { Ok(false) } else { self.write(&key, "2").map(|()| true) }
    }

    /// Has a device of ours take part in what the node forwards, IPv6 too: what hardens a node may switch either off for new
    /// devices.
    #[must_use]
    pub fn open(&self, device: &str) -> Kept {
        let mut kept = Kept::default();
        let wanted = [("ipv4", "forwarding", "1"), ("ipv6", "forwarding", "1"), ("ipv6", "disable_ipv6", "0")];
        let keys = wanted.map(|(family, key, value)| (format!("net/{family}/conf/{device}/{key}"), value));
        for (key, value) in keys.iter().filter(|(key, value)| self.read(key).is_some_and(|now| now != *value)) {
            kept.note(|| format!("{} = {value}", key.replace('/', ".")), self.write(key, value));
        }
        kept
    }

    /// Changes a setting of a device of ours, which goes with the device, so nobody has to know what it was.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn set_device(&self, key: &str, value: i32) -> Result<(), WiringError> {
        self.write(key, &value.to_string())
    }

    /// Whether the kernel drops what comes in by a device that it would not answer by.
    #[must_use]
    pub fn is_strict(&self, device: &str) -> bool {
        let of = |device| self.read(&format!("net/ipv4/conf/{device}/rp_filter")).and_then(|text| text.parse().ok());
        of("all").max(of(device)) == Some(1)
    }

    /// A setting's value, where it exists.
    #[must_use]
    pub fn read(&self, key: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.root.join(key)).ok()?.trim().to_owned())
    }

    /// What is configured by device, `all` and `default` included.
    fn devices(&self, family: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(format!("net/{family}/conf"))).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Sets it and records what it was. A record that can't be written is an error, and the setting is made all the same:
    /// pods come first.
    fn set(&self, key: &str, value: &str) -> Result<(), WiringError> {
        let Some(old) = self.read(key).filter(|old| old != value) else { return Ok(()) };
        let recorded = Record::load(&self.record).and_then(|mut record| {
            record.note(key, &old, value, self.along(key));
            record.store(&self.record)
        });
        self.write(key, value)?;
        let kept = self.read(key).unwrap_or_default();
        // Of lists the kernel keeps a form of its own.
        let recorded = recorded.and_then(|()| match kept == value {
            true => Ok(()),
            false => Record::load(&self.record).and_then(|mut record| {
                record.note(key, &old, &kept, Vec::new());
                record.store(&self.record)
            }),
        });
        Ok(recorded?)
    }

    fn write(&self, key: &str, value: &str) -> Result<(), WiringError> {
        let path = self.root.join(key);
        // With the end of a line: to write nothing is to write nothing, not to make it empty.
        std::fs::write(&path, format!("{value}\n")).map_err(|source| WiringError::Sysctl {
            path: path.display().to_string(),
            value: value.to_owned(),
            source,
        })
    }

    /// Settings that are not what the kernel would make of them when this one is switched off again: it changes the
    /// setting of every device along, and of IPv4 whether redirects are accepted (`inet_forward_change` in
    /// net/ipv4/devinet.c, `addrconf_fixup_forwarding` in net/ipv6/addrconf.c).
    fn along(&self, key: &str) -> Vec<(String, String)> {
        let family = match key {
            "net/ipv4/ip_forward" => "ipv4",
            "net/ipv6/conf/all/forwarding" => "ipv6",
            _ => return Vec::new(),
        };
        let forwarding = self.devices(family).into_iter().filter(|device| device != "all");
        let mut along: Vec<_> =
            forwarding.map(|device| (format!("net/{family}/conf/{device}/forwarding"), "1".to_owned())).collect();
        if family == "ipv4" {
            along.push(("net/ipv4/conf/all/accept_redirects".to_owned(), "0".to_owned()));
        }
        along.retain(|(key, value)| self.read(key).as_ref() == Some(value));
        along
    }

    /// The settings that [`Self::restore`] would give the values that they had, as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// The record can't be read.
    pub fn changed(&self) -> Result<Vec<String>, WiringError> {
        let record = Record::load(&self.record)?;
        let ours = record.settings().iter().filter(|setting| {
            let now = self.read(&setting.key);
            now.is_some_and(|now| now == setting.new && now != setting.old)
        });
        Ok(ours.map(|setting| setting.key.replace('/', ".")).collect())
    }

    /// Gives every setting the value that it had, unless somebody has changed it since. Says how many, and what stayed.
    #[must_use]
    pub fn restore(&self) -> (usize, Vec<WiringError>) {
        let record = match Record::load(&self.record) {
            Ok(record) => record,
            Err(error) => return (0, vec![error.into()]),
        };
        let (mut restored, mut errors) = (0, Vec::new());
        // What was set last goes first: forwarding before what keeps its harm away.
        for setting in record.settings().iter().rev() {
            match self.read(&setting.key) {
                // The device is gone, or the setting is as it was.
                None => continue,
                Some(now) if now == setting.old => continue,
                Some(now) if now != setting.new => {
                    errors.push(WiringError::Changed {
                        key: setting.key.replace('/', "."),
                        now,
                        old: setting.old.clone(),
                    });
                    continue;
                }
                Some(_) => {}
            }
            match self.write(&setting.key, &setting.old) {
                Ok(()) => restored += 1,
                Err(error) => errors.push(error),
            }
            let changed = setting.along.iter().filter(|(key, old)| self.read(key).is_some_and(|now| now != *old));
            for (key, old) in changed {
                errors.extend(self.write(key, old).err());
            }
        }
        (restored, errors)
    }
}

/// What the reserved ports should be, where they are not: with NodePorts, if the kernel would take
/// some of them for sockets that want any port.
fn reserve(range: &str, reserved: &str) -> Option<String> {
    let mut ends = range.split_whitespace().filter_map(|text| text.parse::<u16>().ok());
    let (low, high) = (ends.next()?, ends.next()?);
    let blocks = reserved.split(',').filter_map(|block| {
        let (from, to) = block.split_once('-').unwrap_or((block, block));
        Some((from.trim().parse::<u16>().ok()?, to.trim().parse::<u16>().ok()?))
    });
    let blocks: Vec<_> = blocks.collect();
    let (first, last) = NODE_PORTS;
    if last < low || first > high || blocks.iter().any(|&(from, to)| from <= first && to >= last) {
        return None;
    }
    Some(if reserved.is_empty() { format!("{first}-{last}") } else { format!("{reserved},{first}-{last}") })
}

#[cfg(test)]
mod tests;
