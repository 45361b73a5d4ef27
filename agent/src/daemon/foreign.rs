//! Looks for the interfaces of pods that another plugin has wired, and has the loop take them in.
//!
//! A pod is looked for when its object is there and has an address: some time after it has begun. From then on it is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fairlead_cni::ready::boot_id;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::peer::HostSide;
use fairlead_objects::{Kind, ObjectKey, Pod};
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};
use zerocopy::IntoBytes as _;

use super::engine::Input;
use crate::bpf::{BpfError, Tables};
use crate::cni::AttachedPod;
use crate::foreign::{ForeignPod, Step, Wanted, load, save, steps};
use crate::model::Model;
use crate::state::Shared;
use crate::wiring::{Netlink, Sides};

/// How often the interfaces are looked at when no pod has changed.
const LOOK: Duration = Duration::from_secs(5);

/// How long changes of pods are collected.
const REST: Duration = Duration::from_millis(20);

/// How soon again for a pod that has no interface yet, or that could not be taken in.
const AGAIN: Duration = Duration::from_millis(500);

/// How long a pod may have none before that is said.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps them.
pub(super) struct Keeper {
    shared: Arc<Shared>,
    sides: Sides,
    path: PathBuf,
    boot: String,
    known: Vec<ForeignPod>,
    /// Those of the agent before that are gone, or whose slots are others' by now.
    gone: Vec<ForeignPod>,
    /// Since when pods have no interface, or could not be taken in, and why; and whether that was said.
    missing: BTreeMap<(ObjectKey, String), Missing>,
}

struct Missing {
    since: Instant,
    why: String,
    said: bool,
}

impl Keeper {
    /// Opens what an agent before has left. Of its pods, those whose interface is still there are in [`Keeper::adopted`].
    pub(super) fn open(shared: Arc<Shared>, netlink: Netlink, path: PathBuf) -> Self {
        let boot = boot_id().unwrap_or_else(|error| {
            warn!(%error, "can't tell this boot from another: pods' interfaces are looked for anew");
            String::new()
        });
        let known = load(&path, &boot).unwrap_or_else(|error| {
            warn!(%error, path = %path.display(), "can't read whose interfaces these are: they are looked for anew");
            Vec::new()
        });
        let others = own_slots(&shared.model());
        let is_there = |pod: &ForeignPod| {
            nix::net::if_::if_nametoindex(pod.link.as_str()) == Ok(pod.ifindex) && !others.contains(&pod.slot)
        };
        let (known, gone) = known.into_iter().partition(is_there);
        Self { shared, sides: Sides::new(netlink), path, boot, known, gone, missing: BTreeMap::new() }
    }

    /// The pods of the agent before.
    pub(super) fn adopted(&self) -> impl Iterator<Item = &ForeignPod> {
        self.known.iter()
    }

    /// Those pods of the agent before that are not among them: what they leave behind is to be looked after.
    pub(super) fn take_gone(&mut self) -> Vec<ForeignPod> {
        std::mem::take(&mut self.gone)
    }

    /// Looks until the loop is gone.
    pub(super) async fn run(mut self, inputs: mpsc::Sender<Input>) {
        loop {
            let synced = self.shared.model().synced();
            let wait = match synced {
                true => match self.look(&inputs).await {
                    Ok(wait) => wait,
                    Err(Stopped) => return,
                },
                false => REST,
            };
            // One that has ended with a pod's change is not lost: the notice stays until somebody waits for it.
            let _unasked = timeout(wait, self.shared.foreign.notified()).await;
            sleep(REST).await;
        }
    }

    /// Looks once. How long until the next time.
    async fn look(&mut self, inputs: &mpsc::Sender<Input>) -> Result<Duration, Stopped> {
        let (wanted, others) = {
            let model = self.shared.model();
            (wanted(&model), own_slots(&model))
        };
        let settled: Vec<u32> = self.known.iter().map(|pod| pod.ifindex).collect();
        let addresses: BTreeSet<IpAddr> = wanted.iter().flat_map(|pod| pod.ips.iter().copied()).collect();
        // What is settled stays so; of the rest any may have got its address since.
        let veths = match self.sides.look(&addresses, &settled).await {
            Ok(veths) => veths,
            Err(error) => {
                self.shared.warn("pods of another plugin", Some(format!("can't look for their interfaces: {error}")));
                return Ok(AGAIN);
            }
        };
        let mut missing = Vec::new();
        let mut found = Vec::new();
        let mut changed = false;
        for step in steps(&wanted, &veths, &self.known, &others) {
            match step {
                Step::Release(pod) => {
                    debug!(pod = %pod.key, link = pod.link, "the interface of a pod is gone");
                    ask(inputs, |answer| Input::Detach(pod.to_pod(), answer)).await?;
                    self.known.retain(|known| *known != pod);
                    changed = true;
                }
                Step::Attach(pod) => found.push(pod),
                Step::Missing(pod, why) => missing.push((pod, why)),
            }
        }
        if !found.is_empty() {
            // Their places are known before anything is judged by them.
            self.known.extend(found.iter().cloned());
            self.save();
        }
        // All at once: one that is waited for holds nobody up.
        let attached = join_all(found.iter().map(|pod| take_in(pod, inputs))).await;
        for (pod, outcome) in found.into_iter().zip(attached) {
            match outcome? {
                Ok(()) => info!(pod = %pod.key, link = pod.link, slot = pod.slot, "found the interface of a pod"),
                Err(why) => {
                    self.known.retain(|known| *known != pod);
                    ask(inputs, |answer| Input::Detach(pod.to_pod(), answer)).await?;
                    changed = true;
                    let ForeignPod { key, uid, ips, .. } = pod;
                    missing.push((Wanted { key, uid, ips }, why));
                }
            }
        }
        if changed {
            self.save();
        }
        let wait = if missing.is_empty() { LOOK } else { AGAIN };
        self.tell(missing);
        Ok(wait)
    }

    fn save(&self) {
        let trouble = save(&self.path, &self.boot, &self.known).err();
        let text = trouble.map(|error| {
            format!("{error}: after a restart of the agent, pods are looked for anew, and judged once they are found")
        });
        self.shared.warn("places of pods", text);
    }

    /// Says which pods are not looked after, once they have had time.
    fn tell(&mut self, missing: Vec<(Wanted, String)>) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.missing);
        for (pod, why) in missing {
            let id = (pod.key, pod.uid);
            let Missing { since, said, .. } =
                before.remove(&id).unwrap_or(Missing { since: now, why: String::new(), said: false });
            let due = now.saturating_duration_since(since) >= PATIENCE;
            if due && !said {
                let note = format!("{why}: {}", what_holds(&self.shared.model()));
                self.shared.events.warn(Kind::Pod, &id.0, &id.1, "NotAttached", note);
            }
            self.missing.insert(id, Missing { since, why, said: said || due });
        }
        let due = self.missing.iter().filter(|(_, missing)| missing.said);
        let texts: Vec<String> = due.map(|((key, _), missing)| format!("{key} ({})", missing.why)).collect();
        let text = (!texts.is_empty()).then(|| {
            format!("pods whose interface is not known: {}; {}", texts.join(", "), what_holds(&self.shared.model()))
        });
        self.shared.warn("pods of another plugin", text);
    }
}

/// What is so for a pod that is not looked after.
fn what_holds(model: &Model) -> &'static str {
    if model.rules().parts.enforces() {
        "no policy is enforced on them"
    } else {
        "they reach Services by TCP alone, and no NodePort of this node leads to them"
    }
}

/// Has the loop take a pod in: first what the tables say of it, so that the programs find that when they are attached.
async fn take_in(pod: &ForeignPod, inputs: &mpsc::Sender<Input>) -> Result<Result<(), String>, Stopped> {
    let judged = ask(inputs, |answer| Input::Attach(pod.to_pod(), None, answer)).await?;
    if let Err(error) = judged {
        return Ok(Err(error.to_string()));
    }
    let attached = ask(inputs, |answer| Input::Hook(pod.to_pod(), answer)).await?;
    Ok(attached.map_err(|error| error.to_string()))
}

/// Tells the programs whose interface it is.
///
/// # Errors
/// The kernel refuses.
pub(super) fn note(tables: &Tables, pod: &AttachedPod) -> Result<(), BpfError> {
    let (slot, side) = (u32::from(pod.slot), HostSide { ifindex: pod.ifindex, slot: pod.slot.into() });
    tables.map(TableId::HostSides)?.update(&slot.to_ne_bytes(), &pod.ifindex.to_ne_bytes(), 1)?;
    tables.map(TableId::Foreign)?.update(&pod.ifindex.to_ne_bytes(), side.as_bytes(), 1)
}

/// Tells them that it is nobody's any more.
///
/// # Errors
/// The kernel refuses.
pub(super) fn forget(tables: &Tables, pod: &AttachedPod) -> Result<(), BpfError> {
    tables.map(TableId::Foreign)?.delete(&pod.ifindex.to_ne_bytes(), 1)?;
    tables.map(TableId::HostSides)?.update(&u32::from(pod.slot).to_ne_bytes(), &0_u32.to_ne_bytes(), 1)
}

/// Makes the tables say of these pods what they should, and of nobody else: an agent before may have had others, or wired pods
/// itself since.
///
/// # Errors
/// The kernel refuses.
pub(super) fn note_only(tables: &Tables, pods: &[AttachedPod]) -> Result<(), BpfError> {
    let (foreign, host_sides) = (tables.map(TableId::Foreign)?, tables.map(TableId::HostSides)?);
    let mut left: Vec<Vec<u8>> = Vec::new();
    foreign.for_each(|ifindex, _| {
        if !pods.iter().any(|pod| pod.ifindex.to_ne_bytes() == ifindex) {
            left.push(ifindex.to_vec());
        }
    })?;
    left.iter().try_for_each(|ifindex| foreign.delete(ifindex, 1))?;
    let mut left: Vec<Vec<u8>> = Vec::new();
    host_sides.for_each(|slot, ifindex| {
        let is_nobodys = !pods.iter().any(|pod| u32::from(pod.slot).to_ne_bytes() == slot);
        if is_nobodys && ifindex.iter().any(|byte| *byte != 0) {
            left.push(slot.to_vec());
        }
    })?;
    left.iter().try_for_each(|slot| host_sides.update(slot, &0_u32.to_ne_bytes(), 1))?;
    pods.iter().try_for_each(|pod| note(tables, pod))
}

/// Removes what an agent before has noted of them: every pod is Fairlead's own by now.
pub(super) fn forget_all(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        warn!(%error, path = %path.display(), "can't forget whose interfaces pods of another plugin had");
    }
}

/// The slots of pods that Fairlead has wired, which an agent before may have left.
fn own_slots(model: &Model) -> BTreeSet<u16> {
    model.local().values().filter(|pod| pod.foreign.is_none()).map(|pod| pod.slot).collect()
}

/// The loop is gone.
struct Stopped;

async fn ask<T>(inputs: &mpsc::Sender<Input>, input: impl FnOnce(oneshot::Sender<T>) -> Input) -> Result<T, Stopped> {
    let (answer, answered) = oneshot::channel();
    inputs.send(input(answer)).await.map_err(|_| Stopped)?;
    answered.await.map_err(|_| Stopped)
}

/// The pods of this node that another plugin has given addresses.
fn wanted(model: &Model) -> Vec<Wanted> {
    // One that ends is not taken in any more: its address may be another's before its object is gone.
    let is_here =
        |pod: &&Pod| pod.node_name.as_deref() == Some(model.node_name()) && !pod.host_network && !pod.terminating;
    let own: BTreeSet<&ObjectKey> =
        model.local().values().filter(|local| local.foreign.is_none()).map(|local| &local.key).collect();
    let pods = model.pods().filter(is_here);
    let pods = pods.filter(|pod| !pod.owned_ips().is_empty() && !own.contains(&pod.key));
    let wanted = |pod: &Pod| Wanted {
        key: pod.key.clone(),
        uid: pod.runtime_uid().to_owned(),
        ips: pod.owned_ips().iter().map(IpAddr::to_canonical).collect(),
    };
    pods.map(wanted).collect()
}
