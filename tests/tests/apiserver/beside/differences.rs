//! The differences that there are, each with the name that it has on the page.

use super::questions::Question;
use super::said::Said;

/// A difference.
pub(crate) struct Listed {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// Takes it out of what both say to a question.
    pub(crate) erase: fn(&Question, &mut Said, &mut Said),
}

/// All of them. What makes all else equal comes first.
pub(crate) const LISTED: &[Listed] = &[
    Listed { name: "class", erase: class },
    Listed { name: "opcode", erase: opcode },
    Listed { name: "serial", erase: serial },
    Listed { name: "AXFR", erase: transfers },
    Listed { name: "IXFR", erase: changes },
    Listed { name: "weights in transfers", erase: weights },
    Listed { name: "cached spelling", erase: cached_spelling },
    Listed { name: "cached TTL", erase: cached_ttl },
    Listed { name: "endpoints in transfers", erase: endpoints },
    Listed { name: "ANY", erase: any },
    Listed { name: "pod SRV", erase: ports_of_a_pod },
    Listed { name: "RA", erase: recursion },
    Listed { name: "CD", erase: unchecked },
    Listed { name: "spelling", erase: spelling },
    Listed { name: "no data", erase: no_data },
    Listed { name: "SOA", erase: no_name },
    Listed { name: "exact", erase: targets },
    Listed { name: "underscores", erase: underscores },
    Listed { name: "extended errors", erase: extended_errors },
    Listed { name: "truncated", erase: truncated },
    Listed { name: "external TTL", erase: external_ttl },
    Listed { name: "external alias", erase: external_alias },
    Listed { name: "ns.dns SRV", erase: ports_of_the_server },
    Listed { name: "servers", erase: servers },
    Listed { name: "reverse zones", erase: reverse },
    Listed { name: "end of an alias", erase: end_of_an_alias },
    Listed { name: "nobody", erase: nobody },
    Listed { name: "dns64", erase: made },
];

const AAAA: u16 = 28;
const CNAME: u16 = 5;
const PTR: u16 = 12;
const SRV: u16 = 33;
const ANY: u16 = 255;
const IXFR: u16 = 251;
const SOA: u16 = 6;
const NS: u16 = 2;

fn clear(ours: &mut Said, theirs: &mut Said) {
    (*ours, *theirs) = (Said::default(), Said::default());
}

fn class(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.class != 1 && ours.code == "Refused" {
        clear(ours, theirs);
    }
}

fn opcode(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.wish == "notify" && ours.code == "NotImp" && theirs.code == "NoError" {
        clear(ours, theirs);
    }
}

fn serial(_: &Question, ours: &mut Said, theirs: &mut Said) {
    for said in [ours, theirs] {
        for entry in said.entries().filter(|entry| entry.kind == "SOA") {
            let mut words: Vec<&str> = entry.data.split(' ').collect();
            if let Some(serial) = words.get_mut(2) {
                *serial = "SERIAL";
            }
            entry.data = words.join(" ");
        }
        said.sort();
    }
}

fn recursion(_: &Question, ours: &mut Said, theirs: &mut Said) {
    if ours.flags.contains("RA") && !theirs.flags.contains("RA") {
        ours.flags.remove("RA");
    }
}

fn unchecked(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.wish == "CD" && !theirs.flags.contains("CD") {
        ours.flags.remove("CD");
    }
}

fn spelling(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.wish == "spelling" {
        if question.kind == NS && !theirs.has_answers() {
            return clear(ours, theirs);
        }
        for said in [ours, theirs] {
            for entry in said.entries() {
                entry.owner.make_ascii_lowercase();
                entry.data.make_ascii_lowercase();
            }
            said.sort();
        }
    }
}

fn cached_spelling(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.kept && question.wish != "spelling" {
        for said in [ours, theirs] {
            for entry in said.entries() {
                entry.owner.make_ascii_lowercase();
                entry.data.make_ascii_lowercase();
            }
            said.sort();
        }
    }
}

/// With a cache, TTLs are CoreDNS' own for every answer of the block; and those of answers that are kept shrink, from the
/// moment on when each server was asked.
fn cached_ttl(question: &Question, ours: &mut Said, theirs: &mut Said) {
    const MOST: u32 = 30;
    let is_cut = theirs.entries().all(|entry| entry.ttl <= MOST);
    if question.kept && is_cut {
        for said in [ours, theirs] {
            said.entries().for_each(|entry| entry.ttl = 0);
            said.sort();
        }
    }
}

fn no_data(question: &Question, ours: &mut Said, theirs: &mut Said) {
    let is_own = question.is_in("cluster.local");
    if is_own && ours.code == "NoError" && theirs.code == "NXDomain" && !ours.has_answers() {
        theirs.code.clone_from(&ours.code);
    }
}

fn no_name(question: &Question, ours: &mut Said, theirs: &mut Said) {
    let is_own = question.is_in("cluster.local") && question.kind == SOA;
    if is_own && ours.code == "NXDomain" && theirs.code == "NoError" && !theirs.has_answers() {
        ours.code.clone_from(&theirs.code);
    }
}

fn targets(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_in("old.test") && question.kind == SRV {
        for entry in ours.answers.iter_mut().chain(&mut theirs.answers) {
            entry.data = entry.data.replace("web.shop.svc.cluster.local.", "old.test.");
        }
    }
}

fn transfers(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_transfer() && ours.code == "Refused" && theirs.code == "NoError" {
        clear(ours, theirs);
    }
}

fn changes(question: &Question, ours: &mut Said, theirs: &mut Said) {
    let is_behind = question.wish == "since" && question.is_in("out.example");
    let is_alone = question.wish == "whole" && question.kind == IXFR && !ours.has_answers() && !theirs.has_answers();
    if is_behind || is_alone {
        clear(ours, theirs);
    }
}

fn weights(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if !question.is_transfer() {
        return;
    }
    theirs.answers.retain(|entry| entry.ttl != 0);
    for said in [ours, theirs] {
        for entry in said.answers.iter_mut().filter(|entry| entry.kind == "SRV") {
            let mut words: Vec<&str> = entry.data.split(' ').collect();
            if let Some(weight) = words.get_mut(1) {
                *weight = "WEIGHT";
            }
            entry.data = words.join(" ");
        }
        said.sort();
        said.answers.dedup();
    }
}

fn endpoints(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_transfer() && question.is_in("out.example") {
        for entry in theirs.answers.iter_mut().filter(|entry| entry.ttl == 30) {
            entry.ttl = 9;
        }
        ours.answers.retain(|entry| theirs.answers.contains(entry));
    }
}

fn any(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.kind == ANY && (question.is_in("apps.test") || question.is_in("noipv6.test")) {
        clear(ours, theirs);
    }
}

fn ports_of_a_pod(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.kind == SRV && question.is_in("pod.cluster.local") && !ours.has_answers() {
        clear(ours, theirs);
    }
}

fn underscores(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_in("http._tcp.web.shop.svc.cluster.local") && ours.code == "NXDomain" && theirs.code == "NoError" {
        clear(ours, theirs);
    }
}

fn extended_errors(_: &Question, ours: &mut Said, theirs: &mut Said) {
    const EXTENDED_ERROR: u16 = 15;
    if theirs.opt.as_ref().is_some_and(|(.., options)| options.contains(&EXTENDED_ERROR)) {
        (ours.opt, theirs.opt) = (None, None);
    }
}

fn truncated(question: &Question, ours: &mut Said, theirs: &mut Said) {
    // Of what is kept whole, each cuts off other addresses.
    let are_cut = ours.flags.contains("TC") && theirs.flags.contains("TC");
    if are_cut && (question.kept || ours.answers.len() > theirs.answers.len()) {
        (ours.answers, theirs.answers) = (Vec::new(), Vec::new());
    }
}

fn external_ttl(question: &Question, _: &mut Said, theirs: &mut Said) {
    if question.is_in("out.example") {
        for entry in theirs.entries().filter(|entry| entry.ttl == 30 && (entry.kind == "CNAME" || entry.kind == "SRV"))
        {
            entry.ttl = 9;
        }
    }
}

fn external_alias(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if !question.is_in("cloud.shop.out.example") {
        return;
    }
    if question.kind == CNAME {
        (ours.answers, theirs.authorities) = (Vec::new(), Vec::new());
    }
    // What somebody else says of the balancer's name.
    ours.authorities.retain(|entry| entry.owner != "test.");
    theirs.additionals.retain(|entry| entry.owner != "lb.test.");
}

fn ports_of_the_server(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_in("ns.dns.cluster.local") && question.kind == SRV && ours.has_answers() {
        clear(ours, theirs);
    }
}

fn servers(question: &Question, _: &mut Said, theirs: &mut Said) {
    if question.is_in("cluster.local") {
        let is_other =
            |text: &str| text == "10.96.0.1" || text == "64:ff9b::a60:1" || text.starts_with("kubernetes.default.");
        if question.is_transfer() {
            theirs.answers.retain(|entry| entry.kind != "NS" || !is_other(&entry.data));
            theirs.answers.dedup();
            return;
        }
        let own = question.name.eq_ignore_ascii_case("cluster.local") || question.is_in("ns.dns.cluster.local");
        for section in [&mut theirs.answers, &mut theirs.additionals] {
            section.retain(|entry| !own || !is_other(&entry.data));
        }
    }
}

fn reverse(question: &Question, ours: &mut Said, theirs: &mut Said) {
    let is_reverse = question.is_in("in-addr.arpa") || question.is_in("ip6.arpa");
    if is_reverse && (question.kind != PTR || !ours.has_answers() && !theirs.has_answers()) {
        clear(ours, theirs);
    }
}

fn end_of_an_alias(question: &Question, ours: &mut Said, theirs: &mut Said) {
    let is_alias = ours.answers.iter().any(|entry| entry.kind == "CNAME");
    if question.is_in("svc.cluster.local") && is_alias && theirs.authorities.is_empty() {
        ours.authorities.clear();
        if theirs.code == "NoError" {
            ours.code.clone_from(&theirs.code);
        }
    }
}

fn nobody(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.is_in("corp.test") && ours.code == "Refused" && theirs.code == "ServFail" {
        ours.code.clone_from(&theirs.code);
    }
}

fn made(question: &Question, ours: &mut Said, theirs: &mut Said) {
    if question.over_v6 && question.kind == AAAA {
        if question.is_in("mapped.test") {
            return clear(ours, theirs);
        }
        let is_renamed = question.is_in("old.test") || question.is_in("before.test");
        for entry in ours.answers.iter_mut().chain(&mut theirs.answers).filter(|_| is_renamed) {
            entry.owner.clear();
        }
        for said in [ours, theirs] {
            said.flags.remove("AA");
            said.question.clear();
            if !said.has_answers() {
                said.authorities.clear();
            }
        }
    }
}
