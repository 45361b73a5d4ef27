//! What policies would open and close, for a person.

use super::Table;
use crate::admin::{DifferenceView, PolicyChangeView, PolicyWhatIf};

/// Names that are said of many.
const NAMED: usize = 3;

pub(in crate::cli) fn what_if(what_if: &PolicyWhatIf, wide: bool) -> String {
    let PolicyWhatIf { policies, opens, closes, notes, incomplete } = what_if;
    let mut text = String::new();
    for PolicyChangeView { policy, change } in policies {
        text += &format!("{change}: {policy}\n");
    }
    for note in notes {
        text += &format!("note: {note}\n");
    }
    for missing in incomplete {
        text += &format!("incomplete: {missing}\n");
    }
    for (verb, differences) in [("opens", opens), ("closes", closes)] {
        if differences.is_empty() {
            text += &format!("{verb} nothing\n");
            continue;
        }
        let mut out = Table::new([&format!("{verb} from")[..], "to", "traffic"]);
        for DifferenceView { from, to, traffic } in differences {
            out.row([names(from, wide), names(to, wide), traffic.join(", ")]);
        }
        text += &format!("\n{out}");
    }
    text
}

fn names(all: &[String], wide: bool) -> String {
    match all.len().checked_sub(NAMED) {
        Some(more) if more > 1 && !wide => format!("{} and {more} more", all[..NAMED].join(", ")),
        _ => all.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_summed_up_and_all_are_there_where_asked() {
        let all: Vec<String> = (0..6).map(|n| format!("x/p{n}")).collect();
        assert_eq!(names(&all[..4], false), "x/p0, x/p1, x/p2, x/p3");
        assert_eq!(names(&all, false), "x/p0, x/p1, x/p2 and 3 more");
        assert_eq!(names(&all, true), all.join(", "));
    }

    #[test]
    fn what_is_opened_and_what_is_closed_are_apart() {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let what = PolicyWhatIf {
            policies: vec![PolicyChangeView { policy: "NetworkPolicy x/p".into(), change: "new".into() }],
            closes: vec![DifferenceView {
                from: strings(&["0.0.0.0/0"]),
                to: strings(&["x/a", "x/b"]),
                traffic: strings(&["TCP 80", "UDP"]),
            }],
            notes: vec!["file.yaml: unreadable".into()],
            incomplete: vec!["no pods".into()],
            ..PolicyWhatIf::default()
        };
        let expected = "new: NetworkPolicy x/p\nnote: file.yaml: unreadable\nincomplete: no pods\nopens nothing\n\nCLOSES FROM  TO        TRAFFIC\n\
                        0.0.0.0/0    x/a, x/b  TCP 80, UDP\n";
        assert_eq!(what_if(&what, false), expected);
    }
}
