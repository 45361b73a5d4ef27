//! What pods are told by DNS: from a question of the node's DNS server to addresses in force.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use fairlead_cni::ready::boot_id;
use fairlead_datapath::Addr;
use fairlead_datapath::flow::{Flow, FlowKey};
use fairlead_objects::names::{Ask, NameRules, RULES, Said};
use fairlead_objects::{Kind, ObjectKey};
use nix::time::{ClockId, clock_gettime};
use tracing::{error, info, warn};

use super::content::Content;
use crate::bpf::Tables;
use crate::compile::policy::has_names;
use crate::model::Model;
use crate::names::{Answer, Asked, GRACE, Journal, Told, Turns};
use crate::state::Shared;

/// How long nobody may ask before that is said on the policies: a server that is replaced, and one that starts.
const PATIENCE: Duration = Duration::from_secs(60);

/// The topic of what an operator should know.
const TOPIC: &str = "domainNames";

/// How often everything is planned again for addresses that there was no room for.
const AGAIN: Duration = Duration::from_secs(10);

/// What is asked, what is on disk, and what has been said.
#[derive(Debug)]
pub(super) struct Keeper {
    directory: PathBuf,
    journal: Option<Journal>,
    told: Arc<Told>,
    asked: Turns<Asked>,
    rules: Option<NameRules>,
    /// The file could not be written.
    unwritten: bool,
    /// Since when nobody is connected that could ask.
    alone: Instant,
    again: Instant,
}

impl Keeper {
    /// Restores what pods were told, into the model that knows which pods are there.
    pub(super) fn open(directory: &Path, journal: &Path, told: Arc<Told>, shared: &Shared) -> Self {
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
        let alone = Instant::now();
        Self {
            directory: directory.to_owned(),
            journal,
            told,
            asked: Turns::default(),
            rules: None,
            unwritten: false,
            alone,
            again: alone,
        }
    }

    /// A server asks.
    pub(super) fn take(&mut self, asked: Asked) {
        let (client, addresses) = (asked.ask.client, asked.ask.addresses.len());
        if let Err(asked) = self.asked.push(client, addresses, asked) {
            self.refuse(&asked);
        }
    }

    fn refuse(&self, asked: &Asked) {
        asked.reply(Said::Refused);
        self.told.count(Said::Refused);
    }

    /// When the next answer ends, or at once, if questions wait for their turn.
    pub(super) fn due(&self, shared: &Shared) -> Option<Instant> {
        if !self.asked.is_empty() {
            return Some(Instant::now());
        }
        let model = shared.model();
        let end = model.names().next_end().filter(|_| model.synced())?;
        Some(Instant::now() + Duration::from_millis(end.saturating_sub(now())))
    }

    /// Writes down whose answers concern the agent, once its rules are in force.
    pub(super) fn publish(&mut self, rules: Option<NameRules>) {
        let before = self.rules.clone();
        if let Some(rules) = rules {
            self.rules = Some(rules);
        }
        let path = self.directory.join(RULES);
        // Somebody may have removed the directory.
        let is_due = self.unwritten || matches!(path.try_exists(), Ok(false));
        let Some(rules) = self.rules.as_ref().filter(|rules| is_due || before.as_ref() != Some(*rules)) else {
            return;
        };
        self.unwritten = false;
        if let Err(error) = fairlead_files::put(&path, &rules.encode(), 0o644) {
            self.unwritten = true;
            error!(%error, "can't tell the DNS server which names rules are about: what it answers opens nothing new");
        }
    }

    /// Takes in what was asked, and what has ended.
    pub(super) fn settle(&mut self, content: &mut Content, tables: &mut Tables, shared: &Shared) {
        let (time, settled) = (now(), content.has_settled_policy() && shared.model().synced());
        if settled && shared.model().names().next_end().is_some_and(|end| end <= time) {
            let ended = shared.model_mut().names_mut().expire(time);
            self.tell(content, tables, shared, &ended, false);
        }
        let asked = if settled { self.asked.take() } else { self.asked.take_all() };
        for asked in asked {
            if asked.is_late() {
                self.refuse(&asked);
                continue;
            }
            let said = match settled {
                true => self.answer(content, tables, shared, &asked.ask),
                // Nobody can say what will be in force.
                false if self.covers(&asked.ask) => Said::Refused,
                false => Said::NotCovered,
            };
            asked.reply(said);
            self.told.count(said);
        }
        let model = shared.model();
        self.told.entries.store(model.names().len(), Ordering::Relaxed);
        self.told.evicted.store(model.names().evicted(), Ordering::Relaxed);
    }

    /// Whether the rules that were in force last are about a question.
    fn covers(&self, ask: &Ask) -> bool {
        let Some(rules) = &self.rules else { return true };
        let list = rules.clients.get(&ask.client.to_canonical()).and_then(|list| rules.lists.get(*list));
        list.into_iter().flatten().any(|name| name.matches(&ask.name))
    }

    fn answer(&mut self, content: &mut Content, tables: &mut Tables, shared: &Shared, ask: &Ask) -> Said {
        let pod = shared.model().local_with(ask.client).map(|local| (local.key.clone(), local.uid.clone()));
        let Some((pod, uid)) = pod.filter(|(pod, _)| content.asks(pod, &ask.name)) else { return Said::NotCovered };
        let all: BTreeSet<IpAddr> = ask.addresses.iter().map(IpAddr::to_canonical).collect();
        let addresses: Vec<IpAddr> = all.iter().copied().filter(|ip| content.is_outside(*ip)).collect();
        self.told.inside.fetch_add((all.len() - addresses.len()) as u64, Ordering::Relaxed);
        let time = now();
        let until = time + u64::from(ask.ttl) * 1000 + GRACE;
        let answer = Answer { pod: &pod, uid: &uid, name: &ask.name, addresses: &addresses, until };
        let mut gone = shared.model_mut().names_mut().learn(&answer, time);
        if let Some(Err(error)) = self.journal.as_mut().map(|journal| journal.note(&answer, shared.model().names())) {
            warn!(%error, "can't write down a name that is in force: a restart would forget it");
        }
        let told: BTreeSet<IpAddr> = addresses.into_iter().collect();
        gone.retain(|address| !told.contains(address));
        if !gone.is_empty() {
            self.tell(content, tables, shared, &gone, false);
        }
        match self.tell(content, tables, shared, &told, true) {
            true => Said::InForce,
            false => Said::Refused,
        }
    }

    /// Brings into force what is known of addresses, and says whether all of it is.
    fn tell(
        &mut self,
        content: &mut Content,
        tables: &mut Tables,
        shared: &Shared,
        addresses: &BTreeSet<IpAddr>,
        adds: bool,
    ) -> bool {
        let told = {
            let model = shared.model();
            content.tell(model.names(), addresses, adds, tables)
        };
        match told {
            Ok(tell) => {
                self.told.inside.fetch_add(tell.inside.len() as u64, Ordering::Relaxed);
                if tell.late || !tell.left_out.is_empty() && self.again <= Instant::now() {
                    self.again = Instant::now() + AGAIN;
                    content.plan_policy_again();
                }
                tell.left_out.is_empty()
            }
            Err(error) => {
                error!(error, "can't bring into force what a pod was told by DNS");
                false
            }
        }
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
            let unused = {
                let mut model = shared.model_mut();
                let slots: HashMap<ObjectKey, u16> =
                    model.local().values().map(|pod| (pod.key.clone(), pod.slot)).collect();
                // What has ended since nobody has looked for.
                let is_used = |pod: &ObjectKey, ip: IpAddr| {
                    slots.get(pod).is_some_and(|slot| seen.get(&(*slot, Addr::from(ip))) != Some(&false))
                };
                model.names_mut().keep(is_used)
            };
            if !unused.is_empty() {
                self.tell(content, tables, shared, &unused, false);
            }
        }
        if let Some(Err(error)) = self.journal.as_mut().map(|journal| journal.tend(shared.model().names())) {
            warn!(%error, "can't write anew which names are in force");
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
        let text = "domainNames open nothing on this node: no fairlead-dns asks the agent. Pods need the fairlead-dns of \
                    their node, with --names-dir, as their DNS server; CoreDNS can't be used with domainNames";
        if !shared.progress().warnings.contains_key(TOPIC) {
            warn!("{text}");
            shared.note(|progress| drop(progress.warnings.insert(TOPIC, text.to_owned())));
        }
        warn_policies(&shared.model(), shared, text);
    }
}

fn warn_policies(model: &Model, shared: &Shared, text: &str) {
    for policy in model.cluster_policies().filter(|policy| has_names(policy)) {
        shared.events.warn(Kind::ClusterNetworkPolicy, &policy.key, "", "NamesNotServed", text);
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

/// Milliseconds since boot, with those in which the machine slept: answers end meanwhile.
fn now() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return 0 };
    u64::try_from(time.tv_sec()).unwrap_or_default() * 1000
        + u64::try_from(time.tv_nsec()).unwrap_or_default() / 1_000_000
}
