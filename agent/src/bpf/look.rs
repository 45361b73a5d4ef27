//! What is attached, against what should be.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use fairlead_cni::protocol::is_host_link;
use fairlead_datapath::catalog::TableId;
use fairlead_datapath::slot_of;
use tracing::debug;

use super::attach::{Hook, Means, Place, with_target};
use super::filters::{Rank, STAND_IN, is_of_uplink};
use super::sentry::has_links;
use super::{Hooks, Tables, clsact, links};
use crate::repair::{FilterPlace, Filters, HaveHook, HookStep, Kind, Looked, WantHook, compare_hooks};

impl Hooks {
    /// Compares everything that was attached, and every pin, with what should be, and puts right what is not. Interfaces
    /// that are gone are forgotten.
    pub fn look(&mut self, tables: &Tables, filters: &Filters) -> Looked {
        let mut looked = Looked::default();
        let mut can_pin = true;
        if !self.pins.is_whole() {
            let what = format!("the bpf file system at {} and its directories", self.pins.parent().display());
            let outcome = self.pins.remake();
            can_pin = outcome.is_ok();
            looked.note(Kind::Bpffs, None, what, outcome);
        }
        let (mut pinned, mut refused) = (Vec::new(), None);
        // Programs are looked after all the same: a link lives by its descriptor as well.
        for table in TableId::ALL.iter().filter(|_| can_pin) {
            match tables.keep_pin(*table, &self.pins) {
                Some(Ok(())) => pinned.push(table.info().name),
                Some(Err(error)) => refused = Some((table.info().name, error)),
                None => {}
            }
        }
        if !pinned.is_empty() {
            looked.note(Kind::Pin, None, format!("the pins of the tables {}", pinned.join(", ")), Ok::<_, String>(()));
        }
        if let Some((table, error)) = refused {
            looked.note(Kind::Pin, None, format!("the pin of the table {table}"), Err(error));
        }
        self.forget_vanished();
        self.look_at_xdp();
        let want = self.want();
        let have = self.hooks.iter().map(|(place, hook)| (*place, self.have(*place, hook, filters))).collect();
        let steps = compare_hooks(&want, &have).into_iter();
        for (place, step) in steps.filter(|(_, step)| can_pin || *step != HookStep::Pin) {
            self.put_right(place, step, &mut looked);
        }
        self.hear_sentry(&mut looked);
        looked
    }

    /// Tells of the filters that were put back meanwhile, and opens pods again that have their programs.
    fn hear_sentry(&self, looked: &mut Looked) {
        let Some((sentry, filters)) = &self.sentry else { return };
        for ifindex in sentry.restored() {
            // Of a pod that is gone there is nothing to tell.
            let Some(hook) = self.hooks.get(&Place::Interface { ifindex, ingress: true }) else { continue };
            let what = format!("the filters at {}, which had been removed", hook.target);
            looked.note(Kind::Program, slot_of(ifindex), what, Ok::<_, String>(()));
        }
        for ifindex in sentry.closed() {
            let is_gone = nix::net::if_::if_indextoname(ifindex).is_err();
            let outcome =
                if is_gone || has_links(self.ids_of_pod(), ifindex) { Ok(()) } else { filters.attach(ifindex) };
            match outcome {
                Ok(()) => sentry.opened(ifindex),
                Err(error) => {
                    // Whoever connects the pod, or manages links, may have set it up.
                    sentry.close(ifindex);
                    let what = format!("the link of interface {ifindex} is down, since it has no programs");
                    looked.note(Kind::Program, slot_of(ifindex), what, Err(error));
                }
            }
        }
    }

    /// Uplinks that have another name by now are left to [`Hooks::detach_uplink`], which needs their links; pods' interfaces get their
    /// names back.
    fn forget_vanished(&mut self) {
        let interfaces: BTreeMap<u32, String> = nix::net::if_::if_nameindex()
            .iter()
            .flat_map(|all| all.iter())
            .map(|interface| (interface.index(), interface.name().to_string_lossy().into_owned()))
            .collect();
        // Without a list nothing is known to be gone.
        if interfaces.is_empty() {
            return;
        }
        self.hooks.retain(|place, hook| match place {
            Place::Interface { ifindex, .. } | Place::Guard { ifindex, .. } => {
                interfaces.get(ifindex).is_some_and(|name| is_still(&hook.target, name) || is_of_uplink(hook.program))
            }
            Place::Xdp { ifindex } => interfaces.get(ifindex) == Some(&hook.target),
            Place::Cgroup(_) => true,
        });
    }

    fn want(&self) -> BTreeMap<Place, WantHook> {
        let want = |(place, hook): (&Place, &Hook)| {
            let program = *self.ids.get(hook.program)?;
            let by_link = matches!(self.means(*place, hook), Means::Link(_));
            Some((*place, WantHook { program, by_link, is_guard: matches!(place, Place::Guard { .. }) }))
        };
        self.hooks.iter().filter_map(want).collect()
    }

    fn have(&self, place: Place, hook: &Hook, filters: &Filters) -> HaveHook {
        let pin = match self.means(place, hook) {
            Means::Filter(at) => {
                let is_unseen = hook.since >= filters.as_of || !filters.interfaces.contains(&at.ifindex);
                let program = if is_unseen { self.ids.get(hook.program) } else { filters.programs.get(&at) };
                return HaveHook { program: program.copied(), ..HaveHook::default() };
            }
            Means::Link(pin) => pin,
        };
        let Some(link) = &hook.link else { return HaveHook::default() };
        let found = with_target(place, &hook.target, |target, attach_type| {
            let program = links::program(link.as_fd(), target);
            let first = program.and_then(|program| links::is_first(program, target, attach_type));
            Ok((program, first == Some(false)))
        });
        let (program, behind) = found.unwrap_or_default();
        let leftover = match place {
            Place::Interface { ifindex, ingress } if slot_of(ifindex).is_some() && hook.since < filters.as_of => {
                filters.programs.contains_key(&FilterPlace { ifindex, ingress, priority: STAND_IN })
            }
            _ => false,
        };
        HaveHook { program, pinned: links::is_pinned(link.as_fd(), &pin), behind, leftover }
    }

    fn put_right(&mut self, place: Place, step: HookStep, looked: &mut Looked) {
        let Some(hook) = self.hooks.get(&place) else { return };
        let ifindex = match place {
            Place::Interface { ifindex, .. } | Place::Guard { ifindex, .. } | Place::Xdp { ifindex } => Some(ifindex),
            Place::Cgroup(_) => None,
        };
        let slot = ifindex.and_then(slot_of);
        let (program, target) = (hook.program, hook.target.clone());
        // Pods go while this looks at them.
        if slot.is_some() && ifindex.is_some_and(|ifindex| nix::net::if_::if_indextoname(ifindex).is_err()) {
            return;
        }
        match step {
            HookStep::Attach | HookStep::Guard => {
                let outcome = match place {
                    // The filter that stands in for a link is gone, so the link comes at once. If somebody is about to make
                    // it, that is so anyway.
                    Place::Interface { ifindex, .. } if hook.begun => {
                        if !self.take_back(ifindex) {
                            return;
                        }
                        self.attach_pod(&target, ifindex)
                    }
                    _ => self.attach(place),
                };
                if let (Place::Xdp { ifindex }, Err(error)) = (place, &outcome) {
                    return self.lost_xdp(ifindex, error);
                }
                // It went while this looked at it.
                if outcome.as_ref().is_err_and(|error| ifindex.is_some_and(|ifindex| error.is_of_vanished(ifindex))) {
                    return;
                }
                looked.note(Kind::Program, slot, format!("the program {program} at {target}"), outcome);
            }
            HookStep::First => {
                let outcome = self.put_first(place);
                let what = format!("the first position of the program {program} at {target}");
                looked.note(Kind::Program, slot, what, outcome);
            }
            HookStep::Clear => {
                let Place::Interface { ifindex, ingress } = place else { return };
                match clsact::remove(ifindex, ingress, Rank::PROGRAM, program) {
                    // It is what pods begin with, and its removal may come late: no fault of anybody.
                    Ok(removed) => debug!(link = target, program, removed, "the stand-in filter of a link is gone"),
                    Err(error) => {
                        let what = format!("the filter {program} at {target}, behind its link");
                        looked.note(Kind::Program, slot, what, Err(error));
                    }
                }
            }
            HookStep::Pin => {
                let (Means::Link(path), Some(link)) = (self.means(place, hook), &hook.link) else { return };
                let outcome = links::pin(link.as_fd(), &path);
                looked.note(Kind::Pin, slot, format!("the pin of the program {program} at {target}"), outcome);
            }
        }
    }
}

/// Whether the pod's interface that was `link` is the one that now has its index and this name: somebody may have renamed it, and
/// the index may be that of the next pod in the same slot.
pub(super) fn is_still(link: &str, name: &str) -> bool {
    link == name || !is_host_link(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_interface_that_was_renamed_is_still_the_pods() {
        for (name, same) in [("fl0123456789", true), ("eth7", true), ("flannel.1", true), ("fl9876543210", false)] {
            assert_eq!(is_still("fl0123456789", name), same, "{name}");
        }
    }
}
