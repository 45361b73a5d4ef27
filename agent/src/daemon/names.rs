//! What pods are told by DNS: from a question of the node's DNS server to addresses in force.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fairlead_cni::ready::boot_id;
use fairlead_datapath::Addr;
use fairlead_datapath::flow::{Flow, FlowKey};
use fairlead_objects::ObjectKey;
use fairlead_objects::names::{NameRules, RULES};
use tracing::{error, info, warn};

use super::content::Content;
use super::desk::{Clients, Desk, Handed, now};
use crate::bpf::Tables;
use crate::compile::policy::with_audited;
use crate::model::Model;
use crate::names::{Change, Journal, Told};
use crate::state::{NOT_SERVED, Shared, warn_not_served};
use crate::zone;

/// How long nobody may ask before that is said on the policies: a server that is replaced, and one that starts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic of what an operator should know.
const TOPIC: &str = "domainNames";

/// How often everything is planned again for addresses that there was no room for.
const AGAIN: Duration = Duration::from_secs(10);

/// What the loop has to do with what pods are told: who answers the DNS server is at the [`Desk`].
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    desk: Arc<Desk>,
    told: Arc<Told>,
    zone: Arc<zone::State>,
    /// The rules that are in force, and with those that are only counted as they were written down last.
    rules: Option<NameRules>,
    written: Option<NameRules>,
    audited: NameRules,
    /// The file could not be written.
    unwritten: bool,
    /// Since when nobody is connected that could ask.
    alone: Instant,
    again: Instant,
}

impl Keeper {
    /// Restores what pods were told, into the model that knows which pods are there.
    pub(super) fn open(directory: &Path, journal: &Path, desk: Arc<Desk>, told: Arc<Told>, shared: &Shared) -> Self {
        let restored = boot_id().map_err(|error| error.to_string()).and_then(|boot| {
            let mut model = shared.model_mut();
            let pods: HashMap<ObjectKey, String> =
                model.local().values().map(|pod| (pod.key.clone(), pod.uid.clone())).collect();
            let is_there = |pod: &ObjectKey, uid: &str| pods.get(pod).is_some_and(|own| own == uid);
            Journal::open(journal, &boot, model.names_mut(), now(), is_there).map_err(|error| error.to_string())
        });
        let journal = restored
            .inspect_err(|error| {
                error!(error, "can't keep on disk which names are in force: a restart would forget them");
            })
            .ok();
        let model = shared.model();
        desk.begin_with(model.names(), journal, clients(&model));
        drop(model);
        let alone = Instant::now();
        Self {
            directory: directory.to_owned(),
            desk,
            told,
            zone: Arc::clone(&shared.zone),
            rules: None,
            written: None,
            audited: NameRules::default(),
            unwritten: false,
            alone,
            again: alone,
        }
    }

    /// A pod is attached.
    pub(super) fn attached(&self, pod: &ObjectKey, uid: &str, shared: &Shared) {
        let clients = clients(&shared.model());
        self.desk.set_clients(clients, Some(Change::Begin(pod.clone(), uid.to_owned())));
    }

    /// An interface of a pod is gone, or that of a sandbox which another one has followed.
    pub(super) fn detached(&self, pod: &ObjectKey, shared: &Shared) {
        let (clients, end) = {
            let model = shared.model();
            (clients(&model), end(&model, pod))
        };
        self.desk.set_clients(clients, end);
    }

    /// When the next answer ends.
    pub(super) fn due(&self, shared: &Shared) -> Option<Instant> {
        let model = shared.model();
        let end = model.names().next_end().filter(|_| model.synced())?;
        Some(Instant::now() + Duration::from_millis(end.saturating_sub(now())))
    }

    /// Writes down whose answers concern the agent, once its rules are in force.
    pub(super) fn publish(&mut self, rules: Option<NameRules>) {
        if let Some(rules) = rules {
            self.rules = Some(rules);
        }
        let Some(rules) = self.rules.clone() else { return };
        let rules = with_audited(rules, &self.audited);
        let is_new = self.written.as_ref() != Some(&rules);
        if is_new {
            // Before what they open is asked about.
            self.zone.set_rules(rules.lists.iter().flatten().cloned().collect());
            self.desk.set_rules(rules.clone());
        }
        let path = self.directory.join(RULES);
        // Somebody may have removed the directory.
        let is_due = self.unwritten || matches!(path.try_exists(), Ok(false));
        if !is_new && !is_due {
            return;
        }
        self.unwritten = false;
        if let Err(error) = fairlead_files::put(&path, &rules.encode(), 0o644) {
            self.unwritten = true;
            error!(%error, "can't tell the DNS server which names rules are about: what it answers opens nothing new");
        }
        self.written = Some(rules);
    }

    /// Takes note of rules in audit mode.
    pub(super) fn audit(&mut self, audited: NameRules) {
        self.audited = audited;
        self.publish(None);
    }

    /// Takes over what was said at the desk since the last turn of the loop, before a plan is made of it.
    pub(super) fn begin(&mut self, content: &mut Content, tables: &mut Tables, shared: &Shared) {
        self.take_over(true, content, tables, shared);
    }

    fn take_over(&mut self, begins: bool, content: &mut Content, tables: &mut Tables, shared: &Shared) {
        let Handed { changes, ops, failed, left_out, late, .. } = self.desk.take_over(begins);
        replay(&changes, shared);
        self.told.entries.store(shared.model().names().len(), Ordering::Relaxed);
        content.told(&ops);
        if let Some(error) = failed {
            content.tell_failed(error, tables);
        }
        if late || left_out && self.again <= Instant::now() {
            self.again = Instant::now() + AGAIN;
            content.plan_policy_again();
        }
    }

    /// The same when nothing is planned any more, and what has ended by then.
    pub(super) fn settle(&mut self, content: &mut Content, tables: &mut Tables, shared: &Shared) {
        self.take_over(false, content, tables, shared);
        let (time, settled) = (now(), content.has_settled_policy() && shared.model().synced());
        if settled && shared.model().names().next_end().is_some_and(|end| end <= time) {
            self.desk.change(Change::Expire(time));
            self.take_over(false, content, tables, shared);
        }
        if self.desk.reclaim() {
            self.take_over(false, content, tables, shared);
        }
        self.tend(content, tables, shared);
    }

    /// Writes anew what is on disk, where that has grown.
    fn tend(&mut self, content: &mut Content, tables: &mut Tables, shared: &Shared) {
        let desk = Arc::clone(&self.desk);
        let renew = |journal: &mut Journal| {
            if let Err(error) = journal.renew(shared.model().names()) {
                warn!(%error, "can't write anew which names are in force");
            }
        };
        desk.tend(|| self.take_over(false, content, tables, shared), renew);
    }

    /// What a sweep is to look for.
    pub(super) fn lingering(&self, shared: &Shared) -> Lingering {
        let model = shared.model();
        let slots: HashMap<&ObjectKey, u16> = model.local().values().map(|pod| (&pod.key, pod.slot)).collect();
        let lingering = model.names().lingering();
        let lingering = lingering.filter_map(|(pod, ip)| Some(((*slots.get(pod)?, Addr::from(ip)), false)));
        Lingering(lingering.collect())
    }

    /// Forgets names that have ended and that nothing uses, by what a sweep has seen, and looks after the rest.
    pub(super) fn swept(
        &mut self,
        seen: Option<&Lingering>,
        content: &mut Content,
        tables: &mut Tables,
        shared: &Shared,
    ) {
        if let Some(Lingering(seen)) = seen.filter(|_| content.has_settled_policy()) {
            let unused: Vec<(ObjectKey, IpAddr)> = {
                let model = shared.model();
                let slots: HashMap<&ObjectKey, u16> = model.local().values().map(|pod| (&pod.key, pod.slot)).collect();
                // What has ended since nobody has looked for.
                let is_used = |pod: &ObjectKey, ip: IpAddr| {
                    slots.get(pod).is_some_and(|slot| seen.get(&(*slot, Addr::from(ip))) != Some(&false))
                };
                let unused = model.names().lingering().filter(|(pod, ip)| !is_used(pod, *ip));
                unused.map(|(pod, ip)| (pod.clone(), ip)).collect()
            };
            if !unused.is_empty() {
                self.desk.change(Change::Forget(unused));
                self.take_over(false, content, tables, shared);
            }
        }
        self.publish(None);
        self.look_for_server(shared);
    }

    /// Says on the policies that nobody asks, so that their names open nothing here.
    fn look_for_server(&mut self, shared: &Shared) {
        let is_needed = self.rules.as_ref().is_some_and(|rules| !rules.clients.is_empty());
        if self.told.connected() > 0 {
            self.alone = Instant::now();
        }
        if !is_needed || self.alone.elapsed() < PATIENCE {
            if shared.progress().warnings.contains_key(TOPIC) {
                info!("the node's DNS server asks which names open what");
                shared.note(|progress| drop(progress.warnings.remove(TOPIC)));
            }
            return;
        }
        let text = NOT_SERVED;
        if !shared.progress().warnings.contains_key(TOPIC) {
            warn!("{text}");
            shared.note(|progress| drop(progress.warnings.insert(TOPIC, text.to_owned())));
        }
        warn_not_served(&shared.model(), &shared.events);
    }
}

/// Pods by slot and addresses of which they have connections that a name opened which has ended, and whether there are any.
#[derive(Debug, Default)]
pub(super) struct Lingering(HashMap<(u16, Addr), bool>);

impl Lingering {
    /// Takes note of an entry of the tables of flows.
    pub(super) fn note(&mut self, key: &FlowKey, flow: &Flow) {
        if self.0.is_empty() {
            return;
        }
        let ends = [key.a, key.b];
        let others = flow.is_translated().then_some([flow.other.src, flow.other.dst]);
        for addr in ends.into_iter().chain(others.into_iter().flatten()) {
            if let Some(used) = self.0.get_mut(&(flow.opener.slot, addr)) {
                *used = true;
            }
        }
    }
}

/// The pods of the node, by their addresses.
fn clients(model: &Model) -> Clients {
    let all = model.local().values().rev().flat_map(|pod| pod.ips.iter().map(move |ip| (ip.to_canonical(), pod)));
    all.map(|(ip, pod)| (ip, (pod.key.clone(), pod.uid.clone()))).collect()
}

/// What a pod was told ends with the last that is attached of it.
fn end(model: &Model, pod: &ObjectKey) -> Option<Change> {
    let is_here = model.local().values().any(|local| local.key == *pod);
    (!is_here).then(|| Change::End(pod.clone()))
}

/// Brings the model up to date.
fn replay(changes: &[Change], shared: &Shared) {
    if !changes.is_empty() {
        let mut model = shared.model_mut();
        for change in changes {
            let _told = model.names_mut().take(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::LocalPod;

    #[test]
    fn p76_what_a_pod_was_told_lasts_as_long_as_one_of_its_interfaces() {
        let (pod, uid) = (ObjectKey::new("default", "pod"), "u1".to_owned());
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut model = Model::new("node-1");
        for slot in [5, 6] {
            model.attach(LocalPod {
                slot,
                foreign: None,
                key: pod.clone(),
                uid: uid.clone(),
                ips: vec![IpAddr::from([10, 244, 1, slot as u8])],
                pod_mac: [2, 0, 0, 0, 0, slot as u8],
                host_mac: [10, 0, 0, 0, 0, slot as u8],
            });
        }
        let learn = Change::Learn(pod.clone(), uid, "example.com".to_owned(), vec![address], 60_000, 0);
        model.names_mut().take(&learn);
        for (slot, told) in [(5, 1), (6, 0)] {
            model.detach(slot);
            if let Some(change) = end(&model, &pod) {
                model.names_mut().take(&change);
            }
            assert_eq!(model.names().told(address).filter(|(key, ..)| **key == pod).count(), told);
            assert_eq!(clients(&model).len(), told);
        }
    }
}
