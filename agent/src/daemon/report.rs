//! Says what the tables have no room for: on objects, in the log, in the status and as metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairlead_datapath::catalog::TableId;
use fairlead_datapath::policy::MAX_HITS;
use fairlead_objects::{Kind, ObjectKey};
use tracing::{info, warn};

use super::content::Told;
use crate::compile::claims::{Dispute, Party};
use crate::events::{Scope, Warning};
use crate::plan::policy::CutOff;
use crate::plan::services::PlanError;
use crate::state::Shared;

/// Says what is new, once.
#[derive(Debug, Default)]
pub(super) struct Report {
    cut_off: Arc<Vec<CutOff>>,
    refused: BTreeMap<ObjectKey, PlanError>,
    disputes: BTreeSet<Dispute>,
    nearly_full: BTreeSet<TableId>,
}

/// Policies without counters that are named.
const NAMED: usize = 8;

/// What is said of policies whose rules are not counted, if there are any.
fn uncounted(policies: &BTreeSet<ObjectKey>, fails: bool) -> Option<String> {
    let names: Vec<_> = policies.iter().take(NAMED).map(ToString::to_string).collect();
    let more = policies.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let why = if fails {
        "the kernel refuses to create counters; the agent tries again within a minute, and its log has the error"
            .to_owned()
    } else {
        format!("this node has counters for {MAX_HITS} rules, of which each namespace is guaranteed an equal share")
    };
    let names = names.join(", ");
    (!names.is_empty())
        .then(|| format!("not all rules of policies {names}{more} are counted, though all are in force: {why}"))
}

/// Claims in vain that are listed; beyond that they are counted.
const LISTED: usize = 256;

impl Report {
    /// What policies were planned with, if they were: who is cut off, and how many elements are left out, by table.
    pub(super) fn policy(&mut self, planned: Option<(Vec<CutOff>, BTreeMap<TableId, usize>)>, shared: &Shared) {
        let Some((cut_off, left_out)) = planned else { return };
        if *self.cut_off != cut_off {
            self.tell(&cut_off, shared);
            self.cut_off = Arc::new(cut_off);
        }
        let text = {
            let ledger = shared.rule_hits.ledger();
            uncounted(ledger.uncounted(), ledger.fails())
        };
        shared.warn("counters", text);
        let left_out: BTreeMap<_, _> = left_out.into_iter().map(|(table, count)| (table.info().name, count)).collect();
        let rows = TableId::PolicyPeers.info().name;
        let text = left_out.get(rows).map(|count| {
            format!(
                "{count} addresses that pods were told by DNS open nothing, since what pods were told differs in more ways than \
                 this node has room for: let fewer pods have rules with domainNames, or rules with fewer names"
            )
        });
        shared.warn("names", text);
        let tables: Vec<_> = left_out.keys().copied().filter(|table| *table != rows).collect();
        let text = format!(
            "{} full: some pods and nodes of the cluster are missing from it, so policies that select those pods do \
             not allow them; the cluster is larger than this version supports",
            tables.join(" and ")
        );
        shared.warn("tables", (!tables.is_empty()).then_some(text));
        let cut_off = Arc::clone(&self.cut_off);
        shared.note(|progress| (progress.cut_off, progress.left_out) = (cut_off, left_out));
    }

    fn tell(&self, cut_off: &[CutOff], shared: &Shared) {
        for gone in self.cut_off.iter().filter(|old| !cut_off.iter().any(|new| is_same(old, new))) {
            info!(pod = %gone.pod, direction = %gone.direction, "a pod is no longer cut off");
        }
        // Many pods may have the same policies: what is said on those is said once.
        let mut of_policies = BTreeSet::new();
        for new in cut_off.iter().filter(|new| !self.cut_off.contains(new)) {
            warn!("{new}");
            shared.events.warn(Kind::Pod, &new.pod, &new.uid, "CutOff", new.to_string());
            of_policies.extend(new.policies.iter().map(|policy| (policy.clone(), new.of_policies())));
        }
        for (policy, text) in of_policies {
            let kind = if policy.namespace.is_empty() { Kind::ClusterNetworkPolicy } else { Kind::NetworkPolicy };
            shared.events.warn(kind, &policy, "", "NotInForce", text);
        }
    }

    /// The services that do not fit, if that changed.
    pub(super) fn services(&mut self, refused: Option<BTreeMap<ObjectKey, PlanError>>, shared: &Shared) {
        let Some(refused) = refused else { return };
        for (service, error) in &refused {
            // Numbers move with what others have: it is said again when it is about another table.
            if self.refused.get(service).is_none_or(|old| old.table() != error.table()) {
                warn!(%error, "can't apply a service");
                shared.events.warn(Kind::Service, service, "", "NotInForce", error.to_string());
            }
        }
        for gone in self.refused.keys().filter(|old| !refused.contains_key(old)) {
            info!(service = %gone, "a service fits again, or was deleted");
        }
        let mut lines: Vec<_> =
            refused.iter().take(LISTED).map(|(service, error)| (service.to_string(), error.to_string())).collect();
        if refused.len() > LISTED {
            lines.push(("others".to_owned(), format!("{} more do not fit", refused.len() - LISTED)));
        }
        let count = refused.len();
        shared.note(|progress| (progress.refused, progress.services_refused) = (Arc::new(lines), count));
        self.refused = refused;
    }

    /// How full the tables are, as the metrics have it: once at 80 %, and again after they were below 75 %.
    pub(super) fn fill(&mut self, shared: &Shared) {
        let nearly_full = nearly_full(&self.nearly_full, &shared.metrics.entries());
        let node = ObjectKey::cluster(shared.model().node_name());
        for table in nearly_full.difference(&self.nearly_full) {
            let note = format!(
                "table {table} is 80 % full: {} of {} entries",
                shared.metrics.entries()[table],
                table.info().elements
            );
            shared.events.warn(Kind::Node, &node, "", "TableNearlyFull", note);
        }
        let names: Vec<_> = nearly_full.iter().map(|table| table.info().name).collect();
        let text = format!(
            "{} more than 80 % full: check `fairlead_table_entries` and find out what uses most of it; entries that \
             do not fit will be refused",
            names.join(" and ")
        );
        shared.warn("nearly full", (!names.is_empty()).then_some(text));
        shared.note(|progress| progress.nearly_full = names);
        self.nearly_full = nearly_full;
    }

    /// What objects claim in vain, if that changed: to each of both sides, once.
    pub(super) fn claims(&mut self, told: Option<Told>, shared: &Shared) {
        let Some(Told { disputes, waiting }) = told else { return };
        for dispute in disputes.difference(&self.disputes) {
            warn!(object = %dispute.loser, "{}", dispute.text);
            // Whoever claims pays for both: else it could leave no room for what others should be told.
            let say = |party: &Party, reason, note| {
                shared.events.record(Warning {
                    kind: party.kind,
                    key: party.key.clone(),
                    uid: String::new(),
                    reason,
                    note,
                    scope: if dispute.everywhere { Scope::Cluster } else { Scope::Node },
                    charged: dispute.loser.key.namespace.clone(),
                });
            };
            say(&dispute.loser, "ClaimRefused", dispute.text.clone());
            if let Some(winner) = &dispute.winner {
                say(winner, "ClaimedByOther", dispute.for_winner());
            }
        }
        for gone in self.disputes.difference(&disputes) {
            info!(object = %gone.loser, "refused claim resolved: {}", gone.text);
        }
        let mut lines: Vec<_> = disputes.iter().take(LISTED).map(|d| (d.loser.to_string(), d.text.clone())).collect();
        if disputes.len() > LISTED {
            lines.push(("others".to_owned(), format!("{} more claims are refused", disputes.len() - LISTED)));
        }
        lines.extend(waiting.into_iter().map(|(node, count)| {
            let of =
                if node.is_empty() { "no node yet".to_owned() } else { format!("Node {node}, which is not known") };
            (format!("{count} pods"), format!("they are bound to {of}: policies do not match them until it is known"))
        }));
        self.disputes = disputes;
        let refused = self.disputes.len();
        shared.note(|progress| (progress.claims, progress.claims_refused) = (Arc::new(lines), refused));
    }

    /// What the tables about the node have no room for, if they were planned.
    pub(super) fn node(&self, planned: Option<Vec<String>>, shared: &Shared) {
        if let Some(troubles) = planned {
            shared.warn("node", (!troubles.is_empty()).then(|| troubles.join("; ")));
        }
    }
}

/// The tables that are nearly full, when these were so before.
fn nearly_full(before: &BTreeSet<TableId>, entries: &BTreeMap<TableId, u64>) -> BTreeSet<TableId> {
    let is_full = |table: &TableId, count: u64| {
        let percent = if before.contains(table) { 75 } else { 80 };
        count * 100 >= u64::from(table.info().elements) * percent
    };
    // Slots that were a pod's once are counted in PODS, and given out again. Counters of rules take all the room that there is, and
    // the status names the policies that have none.
    let counted = entries.iter().filter(|(table, _)| !matches!(table, TableId::Pods | TableId::PolicyHits));
    counted.filter(|(table, count)| is_full(table, **count)).map(|(table, _)| *table).collect()
}

fn is_same(a: &CutOff, b: &CutOff) -> bool {
    (a.slot, &a.pod, a.direction) == (b.slot, &b.pod, b.direction)
}

#[cfg(test)]
mod tests {
    use fairlead_objects::ObjectKey;

    use super::*;
    use crate::compile::policy::Direction;
    use crate::events::Recorder;
    use crate::model::Model;
    use crate::plan::policy::Why;
    use crate::plan::services::Holder;

    fn cut_off(slot: u16) -> CutOff {
        CutOff {
            slot,
            pod: ObjectKey::new("shop", format!("web-{slot}")),
            uid: String::new(),
            direction: Direction::Ingress,
            policies: [("", "c"), ("shop", "a"), ("shop", "b")].map(|(ns, name)| ObjectKey::new(ns, name)).into(),
            why: Why::TooManyRules { rules: 2049, most: 2048 },
        }
    }

    #[test]
    fn an_event_stands_on_each_pod_and_once_on_each_policy() {
        let (recorder, mut warnings) = Recorder::channel();
        let shared = Shared::new(Model::new("n1"), None, recorder, Vec::new(), false);
        let mut report = Report::default();
        let mut told = |cut_off: Vec<CutOff>, left_out: &[(TableId, usize)]| {
            report.policy(Some((cut_off, left_out.iter().copied().collect())), &shared);
            let mut told = Vec::new();
            while let Ok(warning) = warnings.try_recv() {
                assert!(warning.note.contains("2049 rules together"), "{}", warning.note);
                told.push(format!("{} {} {}", warning.kind.as_str(), warning.key, warning.reason));
            }
            told
        };
        let first = told(vec![cut_off(1), cut_off(2)], &[]);
        assert_eq!(
            first,
            [
                "Pod shop/web-1 CutOff",
                "Pod shop/web-2 CutOff",
                "ClusterNetworkPolicy c NotInForce",
                "NetworkPolicy shop/a NotInForce",
                "NetworkPolicy shop/b NotInForce"
            ]
        );
        assert_eq!(told(vec![cut_off(1), cut_off(2)], &[(TableId::Peers, 3)]), [""; 0], "it was said");
        let progress = shared.progress();
        assert_eq!((progress.cut_off.len(), progress.left_out["PEERS"]), (2, 3));
        assert!(progress.warnings["tables"].starts_with("PEERS full"), "{:?}", progress.warnings);
        assert_eq!(told(vec![], &[]), [""; 0]);
        let progress = shared.progress();
        assert!(progress.cut_off.is_empty() && progress.left_out.is_empty() && progress.warnings.is_empty());
    }

    #[test]
    fn p72_status_says_why_rules_are_not_counted() {
        assert_eq!(uncounted(&BTreeSet::new(), true), None);
        let policies: BTreeSet<_> = (0..10).map(|n| ObjectKey::new("shop", format!("web-{n}"))).collect();
        let full = uncounted(&policies, false).unwrap();
        assert!(full.contains("shop/web-7 and 2 more are counted"), "{full}");
        assert!(full.contains("16384 rules"), "{full}");
        let fails = uncounted(&policies, true).unwrap();
        assert!(fails.contains("tries again") && !fails.contains("16384"), "{fails}");
    }

    #[test]
    fn a_table_that_is_nearly_full_is_said_once_until_there_was_room() {
        let (recorder, mut warnings) = Recorder::channel();
        let shared = Shared::new(Model::new("n1"), None, recorder, Vec::new(), false);
        let mut report = Report::default();
        let size = u64::from(TableId::Cidrs.info().elements);
        let mut told = |percent: u64| {
            let full = [(TableId::Pods, 1 << 20), (TableId::PolicyHits, u64::from(MAX_HITS))];
            shared.metrics.set_entries([(TableId::Cidrs, (size * percent).div_ceil(100))].into_iter().chain(full));
            report.fill(&shared);
            let event = warnings.try_recv().ok().map(|w| format!("{} {} {}", w.kind.as_str(), w.reason, w.note));
            (event, shared.progress().nearly_full)
        };
        assert_eq!(told(79), (None, vec![]));
        let (event, tables) = told(80);
        assert_eq!(event.as_deref(), Some("Node TableNearlyFull table CIDRS is 80 % full: 13108 of 16384 entries"));
        assert_eq!(tables, ["CIDRS"]);
        assert_eq!(told(99), (None, vec!["CIDRS"]), "it was said");
        assert_eq!(told(75), (None, vec!["CIDRS"]), "it is not over");
        assert!(shared.progress().warnings["nearly full"].starts_with("CIDRS more than 80 % full"));
        assert_eq!(told(74), (None, vec![]));
        assert!(!shared.progress().warnings.contains_key("nearly full"));
        assert!(told(80).0.is_some(), "it is so again");
    }

    #[test]
    fn a_service_that_does_not_fit_is_told_of_once_and_listed_while_it_is_so() {
        let (recorder, mut warnings) = Recorder::channel();
        let shared = Shared::new(Model::new("n1"), None, recorder, Vec::new(), false);
        let mut report = Report::default();
        let service = ObjectKey::new("shop", "huge");
        let error = |table, needed| PlanError::Share {
            service: service.clone(),
            table,
            size: 100,
            holder: Holder::Namespace,
            needed,
            most: 50,
        };
        let mut told = |errors: &[PlanError]| {
            report.services(Some(errors.iter().map(|error| (service.clone(), error.clone())).collect()), &shared);
            let mut told = Vec::new();
            while let Ok(warning) = warnings.try_recv() {
                told.push(format!("{} {} {}", warning.kind.as_str(), warning.key, warning.reason));
            }
            (told, shared.progress().services_refused)
        };
        let event = || vec!["Service shop/huge NotInForce".to_owned()];
        assert_eq!(told(&[error(TableId::Backends, 60)]), (event(), 1));
        assert_eq!(told(&[error(TableId::Backends, 61)]), (vec![], 1), "it was said");
        assert!(shared.progress().refused[0].1.contains("would use 61 entries"), "{:?}", shared.progress().refused);
        assert_eq!(told(&[error(TableId::Slots, 61)]), (event(), 1));
        assert_eq!(told(&[]), (vec![], 0));
    }

    #[test]
    fn both_sides_of_a_claim_are_told_once_and_it_is_listed_while_it_stands() {
        let (recorder, mut warnings) = Recorder::channel();
        let shared = Shared::new(Model::new("n1"), None, recorder, Vec::new(), false);
        let mut report = Report::default();
        let dispute = |loser: Party, everywhere| Dispute {
            loser,
            winner: Some(Party::service(&ObjectKey::new("kube-system", "kube-dns"))),
            text: "it is another's".into(),
            everywhere,
        };
        let thief = ObjectKey::new("shop", "thief");
        let both = [dispute(Party::service(&thief), true), dispute(Party::pod(&thief), false)];
        let waiting: BTreeMap<_, _> = [("late".to_owned(), 2)].into();
        let mut told = |disputes: &[Dispute], waiting: &BTreeMap<String, usize>| {
            let told = Told { disputes: disputes.iter().cloned().collect(), waiting: waiting.clone() };
            report.claims(Some(told), &shared);
            let mut told = Vec::new();
            while let Ok(warning) = warnings.try_recv() {
                assert!(warning.note.contains("it is another's"), "{}", warning.note);
                let node = if warning.scope == Scope::Node { " here" } else { "" };
                told.push(format!("{} {} {}{node}", warning.kind.as_str(), warning.key, warning.reason));
            }
            told.sort();
            told
        };
        let expected = [
            "Pod shop/thief ClaimRefused here",
            "Service kube-system/kube-dns ClaimedByOther",
            "Service kube-system/kube-dns ClaimedByOther here",
            "Service shop/thief ClaimRefused",
        ];
        assert_eq!(told(&both, &waiting), expected);
        assert_eq!(told(&both, &waiting), [""; 0], "it was said");
        let progress = shared.progress();
        assert_eq!((progress.claims.len(), progress.claims_refused), (3, 2));
        assert!(progress.claims[2].1.contains("Node late"), "{:?}", progress.claims);
        assert_eq!(told(&both[1..], &BTreeMap::new()), [""; 0]);
        assert_eq!(shared.progress().claims.len(), 1);
    }
}
