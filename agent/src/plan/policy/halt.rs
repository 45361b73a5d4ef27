//! Room for a change that does not fit beside what is there.

use fairlead_datapath::peer::PodWord;
use fairlead_datapath::policy::{ALLOW_ALL, CUT_OFF, DENY_ALL, is_closed};

use super::Content;
use super::change::{delete_rows, is_same, next_epoch};
use crate::compile::policy::{Judge, Wanted};
use crate::plan::Op;

/// Stops the pods that the wanted content cuts off, or all that a set judges, and takes away the rows that nothing leads
/// to then.
pub(super) fn halt(old: &Content, wanted: &Wanted, all: bool) -> Vec<Op> {
    let (mut ops, mut content) = (Vec::new(), old.clone());
    for (slot, pod) in &old.peer.pods {
        let goes_on = wanted.pods.get(slot).filter(|wanted| is_same(pod, &wanted.record));
        let word = PodWord(pod.word);
        let halted = |set: u32, judge: Option<Judge>| {
            let is_set = set != ALLOW_ALL && !is_closed(set);
            let stays = judge.is_some_and(|judge| judge != Judge::CutOff) && !(all && is_set);
            if stays || set == DENY_ALL { set } else { CUT_OFF }
        };
        let ingress = halted(word.ingress(), goes_on.map(|pod| pod.ingress));
        let egress = halted(word.egress(), goes_on.map(|pod| pod.egress));
        if (ingress, egress) != (word.ingress(), word.egress()) {
            ops.push(Op::PodWord { slot: *slot, word: PodWord::new(ingress, egress, next_epoch(pod)).0 });
        }
    }
    ops.iter().for_each(|op| content.apply(op));
    ops.push(Op::Barrier);
    let live = content.sets();
    let mut target = content.clone();
    target.policy.sets.retain(|_, set| live.contains(&set.id));
    target.policy.peers.retain(|key, _| live.contains(&key.set));
    target.policy.ports.retain(|key, _| live.contains(&key.set));
    target.policy.ranges.retain(|key, _| live.contains(&key.set));
    delete_rows(&content, &target, &target.policy.peers, &mut ops);
    ops
}
