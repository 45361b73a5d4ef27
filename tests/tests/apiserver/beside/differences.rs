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

/// All of them.
pub(crate) const LISTED: &[Listed] = &[Listed { name: "serial", erase: serial }];

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
