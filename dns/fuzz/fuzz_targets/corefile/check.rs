//! What must hold for any text that is a Corefile.

use std::io;
use std::path::Path;

use fairlead_dns::WireName;
use fairlead_dns::corefile::{Corefile, translate};
use fairlead_dns::files::Files;
use fairlead_dns::site::{rewrite, template};
use fairlead_dns::wire::RecordType;

/// The text, also where it imports a file.
struct One<'t>(&'t str);

impl Files for One<'_> {
    fn text(&self, _: &Path) -> io::Result<String> {
        Ok(self.0.to_owned())
    }

    fn names(&self, _: &Path) -> io::Result<Vec<String>> {
        Ok(vec!["one.server".to_owned()])
    }

    fn variable(&self, name: &str) -> Option<String> {
        Some(name.to_owned())
    }
}

/// Nothing panics: it is read or refused with a place, and its rules meet a name.
///
/// # Panics
/// When that doesn't hold.
pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let plan = Corefile::read(Path::new("Corefile"), &One(&text)).and_then(|corefile| translate(&corefile, 100));
    let plan = match plan {
        Ok(plan) => plan,
        Err(mistake) => {
            assert!(mistake.place.line > 0 && !mistake.text.is_empty(), "a mistake has a place: {mistake}");
            return;
        }
    };
    let name = WireName::parse("www.a.example").expect("it is a name");
    for block in plan.blocks {
        // What a rule makes of a name may be none.
        let _rewritten = rewrite::rewrite(&block.rules.rewrites, name.as_wire(), RecordType::A);
        let _answer = template::answer(&block.rules.templates, name.as_wire(), name.as_wire(), RecordType::A);
    }
}
